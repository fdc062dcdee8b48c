"""Everybody reconnects within half a minute, with a fresh token each: with the database there, and away."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.connections import Connection, HandshakeFailed, Http, Refused, close_all, take, take_all
from bench.machine import cpu_seconds
from bench.ours import Site
from bench.patient import Watched
from bench.traffic import percentile
from bench.wire import Seat

MOST_MS = 2000.0


async def run(
    site: Site, folder: Path, core: int, clients: int, within: float, say: Callable[[str], None]
) -> bool:
    """Whether everybody came back both times, in time."""
    server = await asyncio.to_thread(Watched, site, folder, core)
    pairs = await asyncio.to_thread(site.pairs_at, server.port, clients // 2, 200)
    seats = [seat for pair in pairs for seat in pair]
    connections = await take_all(seats, at_once=64)
    # The timer sees that all these accounts are enabled.
    await asyncio.sleep(3)
    say(f"{len(connections)} are connected and in their channels")
    good = True
    for title in ("the database is there", "the database is away"):
        if title.endswith("away"):
            await asyncio.to_thread(site.postgres.stop)
        close_all(connections)
        connections, told, well = await _come_back(seats, server, within)
        good = good and well
        say(f"{title}: {told}")
    stopped = time.monotonic()
    await asyncio.to_thread(site.postgres.start)
    started = time.monotonic()
    while await _readiness(server.port) != 200:  # noqa: ASYNC110 (it is another process)
        await asyncio.sleep(0.02)
    say(
        f"started PostgreSQL in {started - stopped:.1f} s; ready {time.monotonic() - started:.1f} s after that"
    )
    close_all(connections)
    return good


async def _come_back(
    seats: Sequence[Seat], server: Watched, within: float
) -> tuple[list[Connection], dict[str, float], bool]:
    times: list[float] = []
    failed: list[str] = []
    used, began = cpu_seconds(server.pid), time.perf_counter()

    async def one(seat: Seat) -> Connection | None:
        await asyncio.sleep(random.uniform(0, within))
        started = time.perf_counter()
        try:
            url, _, _ = seat.url.partition("?")
            token = await _token(seat, server.port)
            connection = await take(replace(seat, url=f"{url}?token="), token)
        except (HandshakeFailed, Refused, ConnectionError, OSError) as error:
            failed.append(f"{type(error).__name__}: {error}"[:120])
            return None
        times.append((time.perf_counter() - started) * 1000)
        return connection

    found = await asyncio.gather(*map(one, seats))
    seconds = time.perf_counter() - began
    times.sort()
    told = {
        "back": len(times),
        "failed": len(failed),
        "seconds": round(seconds, 1),
        "p50_ms": round(percentile(times, 0.5)),
        "p99_ms": round(percentile(times, 0.99)),
        "server_busy": round((cpu_seconds(server.pid) - used) / seconds, 2),
    }
    if failed:
        print(*sorted(set(failed))[:5], sep="\n")
    back = [connection for connection in found if connection is not None]
    return back, told, not failed and told["p99_ms"] < MOST_MS


async def _token(seat: Seat, port: int) -> str:
    http = await Http.open(port)
    try:
        status, body = await http.post(seat.token_path, "{}", seat.access)
    finally:
        http.close()
    if status != 200:
        raise Refused(f"no token: HTTP {status}")
    return str(json.loads(body)["token"])


async def _readiness(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: endure\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])
