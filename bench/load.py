"""The load: a process of its own, told by lines of JSON on standard input, answering by lines on standard output.

`python -m bench.load CORE normal|yielding` does the JOBS it is given, one after the other, on uvloop, until its input ends.
An answer is {"result": …} or {"failed": why}; before it {"running": true} may say that measuring has begun.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from bench import devices, requests, traffic
from bench.wire import Pair, Seat

Job = Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, float]]]


def seats_of(given: list[dict[str, Any]]) -> list[Seat]:
    return [Seat.from_json(data) for data in given]


def pairs_of(given: list[list[dict[str, Any]]]) -> list[Pair]:
    return [(Seat.from_json(sender), Seat.from_json(receiver)) for sender, receiver in given]


def running() -> None:
    answer({"running": True})


def answer(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def relay(job: dict[str, Any]) -> dict[str, float]:
    plan = traffic.Plan(**job["plan"])
    return await traffic.relay(pairs_of(job["pairs"]), plan, seats_of(job["idle"]), running)


async def idle(job: dict[str, Any]) -> dict[str, float]:
    return await devices.idle(seats_of(job["first"]), seats_of(job["more"]), job["server_pid"])


async def connects(job: dict[str, Any]) -> dict[str, float]:
    seats = seats_of(job["seats"])
    return await devices.one_after_another(seats, job["at_once"], job["seconds"], job["server_pid"])


async def storm(job: dict[str, Any]) -> dict[str, float]:
    return await devices.storm(seats_of(job["seats"]))


async def posts(job: dict[str, Any]) -> dict[str, float]:
    act = requests.pairings(job["users"]) if job["users"] else requests.posts(job["path"])
    plan = requests.Plan(**job["plan"])
    return await requests.repeated(act, plan)


JOBS: dict[str, Job] = {
    "relay": relay,
    "idle": idle,
    "connects": connects,
    "storm": storm,
    "posts": posts,
}


def main() -> None:
    os.sched_setaffinity(0, {int(sys.argv[1])})
    if sys.argv[2] == "yielding":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            job = json.loads(line)
            try:
                answer({"result": runner.run(JOBS[job["job"]](job))})
            except Exception as error:
                answer({"failed": f"{type(error).__name__}: {error}"})
            gc.collect()


if __name__ == "__main__":
    main()
