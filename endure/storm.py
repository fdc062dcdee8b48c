"""All clients reconnect within half a minute, with a fresh token each: with the database there, and away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace

from endure.run import Run
from endure.server import Server
from harness.load_client import (
    Connection,
    Endpoint,
    HandshakeFailed,
    HttpConnection,
    Refused,
    both,
    close_all,
    connect,
    connect_all,
    percentile,
    ws_token,
)
from harness.machine import cpu_seconds
from harness.pairing_database import PairingDatabase

MAX_P99_MS = 2000.0


async def check(run: Run, database: PairingDatabase, clients: int, within: float) -> bool:
    """Whether all reconnected both times, and fast enough."""
    server = await asyncio.to_thread(Server, run, database)
    endpoints = both(await asyncio.to_thread(database.add_pairs, server.port, clients // 2, 200))
    connections = await connect_all(endpoints, at_once=64)
    # A periodic job reads that these accounts are enabled.
    await asyncio.sleep(3)
    run.say(f"{len(connections)} are connected and in their channels")
    good = True
    for away in (False, True):
        if away:
            await asyncio.to_thread(database.postgres.stop)
        close_all(connections)
        connections, figures = await _reconnect(run, server, endpoints, within)
        good = good and not figures["failed"] and figures["p99_ms"] < MAX_P99_MS
        run.say(f"the database is {'away' if away else 'there'}: {figures}")
    stopped = time.monotonic()
    await asyncio.to_thread(database.postgres.start)
    started = time.monotonic()
    http = await HttpConnection.open(server.port)
    while (await http.get("/readyz"))[0] != 200:
        await asyncio.sleep(0.02)
    http.close()
    run.say(
        f"started PostgreSQL in {started - stopped:.1f} s; ready {time.monotonic() - started:.1f} s after that"
    )
    close_all(connections)
    return good


async def _reconnect(
    run: Run, server: Server, endpoints: Sequence[Endpoint], within: float
) -> tuple[list[Connection], dict[str, float]]:
    """Each at a random moment; the connections, and the figures."""
    times: list[float] = []
    failures: list[str] = []
    used, began = cpu_seconds(server.pid), time.perf_counter()

    async def one(endpoint: Endpoint) -> Connection | None:
        await asyncio.sleep(random.uniform(0, within))
        started = time.perf_counter()
        try:
            http = await HttpConnection.open(endpoint.port)
            try:
                token = await ws_token(http, endpoint)
            finally:
                http.close()
            if token is None:
                raise Refused("no token")
            connection = await connect(replace(endpoint, url=endpoint.with_token(token)))
        except (HandshakeFailed, Refused, OSError) as error:
            failures.append(f"{type(error).__name__}: {error}"[:120])
            return None
        times.append((time.perf_counter() - started) * 1000)
        return connection

    connections = await asyncio.gather(*map(one, endpoints))
    seconds = time.perf_counter() - began
    times.sort()
    for failure in sorted(set(failures))[:5]:
        run.say(failure)
    return [connection for connection in connections if connection is not None], {
        "back": len(times),
        "failed": len(failures),
        "seconds": round(seconds, 1),
        "p50_ms": round(percentile(times, 0.5)),
        "p99_ms": round(percentile(times, 0.99)),
        "server_busy": round((cpu_seconds(server.pid) - used) / seconds, 2),
    }
