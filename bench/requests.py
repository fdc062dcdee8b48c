"""HTTP requests: whole pairings (a code is made, and redeemed), and bare POSTs to compare them with."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from bench.connections import Http
from bench.machine import cpu_seconds
from bench.traffic import percentile

# Does one thing to be counted; says whether it succeeded.
Act = Callable[[Http], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Plan:
    """`at_once`: how many clients, each with a connection of its own. Times in seconds."""

    port: int
    server_pid: int
    at_once: int
    warm_up: float
    seconds: float


async def repeated(act: Act, plan: Plan) -> dict[str, float]:
    """Each client acts again and again: acts a second, CPU of each in µs, times in ms, how many failed."""
    times: list[int] = []
    failed = 0
    begin = time.perf_counter() + plan.warm_up
    end = begin + plan.seconds

    async def client() -> None:
        nonlocal failed
        http = await Http.open(plan.port)
        while (started := time.perf_counter()) < end:
            succeeded = await act(http)
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
        "acts": len(times),
        "rate": len(times) / plan.seconds,
        "cpu_us": spent * 1e6 / max(1, len(times)),
        "server_busy": spent / plan.seconds,
        "p50_ms": percentile(times, 0.50) / 1e6,
        "p99_ms": percentile(times, 0.99) / 1e6,
        "failed": failed,
    }


def pairings(users: Sequence[str]) -> Act:
    """Pair two new devices of the next user. `users`: access tokens."""
    turn = itertools.cycle(enumerate(users))

    async def pair(http: Http) -> bool:
        number, access = next(turn)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        name = uuid4().hex
        asked = json.dumps({"desktop_session_id": f"desktop-{name}"})
        status, body = await http.post("/api/generate-pair-code", asked, access, address)
        if status != 200:
            return False
        typed = json.dumps({"code": json.loads(body)["code"], "mobile_session_id": f"mobile-{name}"})
        status, _ = await http.post("/api/pair-device", typed, access, address)
        return status == 200

    return pair


def posts(path: str) -> Act:
    """One JSON POST of a code request's size."""
    body = json.dumps({"desktop_session_id": f"desktop-{uuid4().hex}"})

    async def post(http: Http) -> bool:
        status, _ = await http.post(path, body)
        return status == 200

    return post
