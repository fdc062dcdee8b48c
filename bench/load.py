"""The load: a process of its own, told by one JSON object on standard input, answering by one on standard output.

`python -m bench.load` runs one of JOBS on uvloop and ends. The job's result is {"result": …} or {"failed": why}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from bench import devices, requests, traffic
from bench.wire import Pair, Seat

Job = Callable[[dict[str, Any]], Awaitable[Any]]


def seats_of(given: list[dict[str, Any]]) -> list[Seat]:
    return [Seat.from_json(data) for data in given]


def pairs_of(given: list[list[dict[str, Any]]]) -> list[Pair]:
    return [(Seat.from_json(sender), Seat.from_json(receiver)) for sender, receiver in given]


async def relay(job: dict[str, Any]) -> dict[str, float]:
    plan = traffic.Plan(**job["plan"])
    return await traffic.relay(pairs_of(job["pairs"]), plan, seats_of(job.get("idle", [])))


async def idle(job: dict[str, Any]) -> dict[str, float]:
    return await devices.idle(seats_of(job["first"]), seats_of(job["more"]), job["server_pid"])


async def connects(job: dict[str, Any]) -> dict[str, float]:
    seats = seats_of(job["seats"])
    return await devices.one_after_another(seats, job["at_once"], job["seconds"], job["server_pid"])


async def storm(job: dict[str, Any]) -> dict[str, float]:
    return await devices.storm(seats_of(job["seats"]))


async def posts(job: dict[str, Any]) -> dict[str, float]:
    act = requests.pairings(job["users"]) if job["users"] else requests.posts(job["path"])
    return await requests.repeated(act, job["port"], job["at_once"], job["seconds"], job["server_pid"])


JOBS: dict[str, Job] = {
    "relay": relay,
    "idle": idle,
    "connects": connects,
    "storm": storm,
    "posts": posts,
}


def main() -> None:
    job = json.load(sys.stdin)
    os.sched_setaffinity(0, {job["core"]})
    os.nice(job.get("nice", 0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            answer = {"result": runner.run(JOBS[job["job"]](job))}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
