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
from typing import Any, get_type_hints

import msgspec
import uvloop

from bench import connect_load, message_load, request_load
from harness.load_client import Endpoint, Pair


def _answer(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def relay(pairs: list[Pair], idle: list[Endpoint], plan: message_load.Plan) -> dict[str, float]:
    return await message_load.relay(pairs, idle, plan, lambda: _answer({"running": True}))


async def requests(users: list[str], path: str, plan: request_load.Plan) -> dict[str, float]:
    """Pairings of the users, or POSTs to the path if there are none."""
    request = request_load.pairings(users) if users else request_load.posts(path)
    return await request_load.repeated(request, plan)


JOBS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, float]]]] = {
    "relay": relay,
    "idle": connect_load.idle,
    "connects": connect_load.repeated,
    "storm": connect_load.storm,
    "requests": requests,
}


def main() -> None:
    if sys.argv[1] == "yielding":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            name, given = json.loads(line)
            kinds = get_type_hints(JOBS[name])
            try:
                arguments = {key: msgspec.convert(value, kinds[key]) for key, value in given.items()}
                _answer({"result": runner.run(JOBS[name](**arguments))})
            except Exception as error:
                _answer({"failed": f"{type(error).__name__}: {error}"})
            gc.collect()


if __name__ == "__main__":
    main()
