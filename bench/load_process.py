"""The load, a process of its own: `python -m bench.load_process normal|yielding`.

It reads a job a line as JSON, does one after the other on uvloop, and answers each with a line: {"result": …} or {"failed": why}.
{"running": true} may come before it, when measuring has begun.
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

from bench import connect_load, message_load, request_load
from harness.load_client import Endpoint, Pair

Job = Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, float]]]


def _endpoints(given: list[dict[str, Any]]) -> list[Endpoint]:
    return [Endpoint.from_json(data) for data in given]


def _pairs(given: list[list[dict[str, Any]]]) -> list[Pair]:
    return [(Endpoint.from_json(sender), Endpoint.from_json(receiver)) for sender, receiver in given]


def _answer(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def relay(job: dict[str, Any]) -> dict[str, float]:
    plan = message_load.Plan(**job["plan"])
    return await message_load.relay(
        _pairs(job["pairs"]), _endpoints(job["idle"]), plan, lambda: _answer({"running": True})
    )


async def idle(job: dict[str, Any]) -> dict[str, float]:
    return await connect_load.idle(_endpoints(job["first"]), _endpoints(job["more"]), job["server_pid"])


async def connects(job: dict[str, Any]) -> dict[str, float]:
    return await connect_load.repeated(
        _endpoints(job["endpoints"]), job["at_once"], job["seconds"], job["server_pid"]
    )


async def storm(job: dict[str, Any]) -> dict[str, float]:
    return await connect_load.storm(_endpoints(job["endpoints"]))


async def requests(job: dict[str, Any]) -> dict[str, float]:
    request = request_load.pairings(job["users"]) if job["users"] else request_load.posts(job["path"])
    return await request_load.repeated(request, request_load.Plan(**job["plan"]))


JOBS: dict[str, Job] = {job.__name__: job for job in (relay, idle, connects, storm, requests)}


def main() -> None:
    if sys.argv[1] == "yielding":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            job = json.loads(line)
            try:
                _answer({"result": runner.run(JOBS[job["job"]](job))})
            except Exception as error:
                _answer({"failed": f"{type(error).__name__}: {error}"})
            gc.collect()


if __name__ == "__main__":
    main()
