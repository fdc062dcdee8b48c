"""HTTP requests by several clients at once: whole pairings, or bare POSTs to compare them with."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from harness.load_client import HttpConnection, pair_new_devices, percentile
from harness.machine import cpu_seconds

# What is counted; returns whether it succeeded.
Request = Callable[[HttpConnection], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Plan:
    """`at_once`: how many clients, each with a connection of its own. Times in seconds."""

    port: int
    server_pid: int
    at_once: int
    warm_up: float
    seconds: float


async def repeated(request: Request, plan: Plan) -> dict[str, float]:
    """Each client repeats its request: requests a second, CPU of each in µs, times in ms, how many failed."""
    times: list[int] = []
    failed = 0
    begin = time.perf_counter() + plan.warm_up
    end = begin + plan.seconds

    async def client() -> None:
        nonlocal failed
        http = await HttpConnection.open(plan.port)
        while (started := time.perf_counter()) < end:
            succeeded = await request(http)
            if not succeeded:
                failed += 1
            elif begin <= (now := time.perf_counter()) < end:
                times.append(round((now - started) * 1e9))
        http.close()

    clients = asyncio.gather(*(client() for _ in range(plan.at_once)))
    await asyncio.sleep(plan.warm_up)
    used = cpu_seconds(plan.server_pid)
    await asyncio.sleep(end - time.perf_counter())
    spent = cpu_seconds(plan.server_pid) - used
    await clients
    times.sort()
    return {
        "succeeded": len(times),
        "failed": failed,
        "rate": len(times) / plan.seconds,
        "cpu_us": spent * 1e6 / max(1, len(times)),
        "server_busy": spent / plan.seconds,
        "p50_ms": percentile(times, 0.50) / 1e6,
        "p99_ms": percentile(times, 0.99) / 1e6,
    }


def pairings(accesses: Sequence[str]) -> Request:
    """Pair two new devices of the next user, who has an address of their own. `accesses`: the users' access tokens."""
    turn = itertools.cycle(enumerate(accesses))

    async def pair(http: HttpConnection) -> bool:
        number, access = next(turn)
        return await pair_new_devices(http, access, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    return pair


def posts(path: str) -> Request:
    """One JSON POST of a code request's size."""
    body = json.dumps({"desktop_session_id": f"desktop-{uuid4().hex}"})

    async def post(http: HttpConnection) -> bool:
        status, _ = await http.post(path, body)
        return status == 200

    return post
