"""Devices that connect: how many in a second, all at the same moment, and the memory that the server uses for each."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from harness.load_client import (
    Connection,
    Endpoint,
    HandshakeFailed,
    HttpConnection,
    Refused,
    close_all,
    connect,
    connect_all,
    percentile,
    ws_token,
)
from harness.machine import cpu_seconds, resident_bytes

TOKEN_TRIES = 20


@dataclass(slots=True)
class Tally:
    """The outcomes of the connects. `times`: nanoseconds of each that succeeded."""

    times: list[int] = field(default_factory=list)
    retries: int = 0
    handshakes_failed: int = 0
    refused: int = 0

    async def connect(self, endpoint: Endpoint, http: HttpConnection | None) -> Connection | None:
        """A full connect: over `http` the token if one is needed, the upgrade, and the script. None if it failed."""
        began = time.perf_counter_ns()
        try:
            if http is not None:
                endpoint = replace(endpoint, url=endpoint.with_token(await self._token(http, endpoint)))
            connection = await connect(endpoint)
        except HandshakeFailed:
            self.handshakes_failed += 1
        except Refused:
            self.refused += 1
        else:
            self.times.append(time.perf_counter_ns() - began)
            self.retries += connection.retries
            return connection
        return None

    async def _token(self, http: HttpConnection, endpoint: Endpoint) -> str:
        for _ in range(TOKEN_TRIES):
            token = await ws_token(http, endpoint)
            if token is not None:
                return token
            self.retries += 1
            await asyncio.sleep(0.2)
        raise Refused("no token")

    def result(self, seconds: float) -> dict[str, float]:
        times = sorted(self.times)
        return {
            "connects": len(times),
            "seconds": seconds,
            "rate": len(times) / seconds,
            "p50_ms": percentile(times, 0.50) / 1e6,
            "p99_ms": percentile(times, 0.99) / 1e6,
            "retries": self.retries,
            "handshakes_failed": self.handshakes_failed,
            "refused": self.refused,
        }


async def repeated(
    endpoints: Sequence[Endpoint], at_once: int, seconds: float, server_pid: int
) -> dict[str, float]:
    """`at_once` clients connect, close and connect again: connects a second, CPU of each in µs."""
    tally = Tally()
    turn = itertools.cycle(endpoints)
    began, used = time.perf_counter(), cpu_seconds(server_pid)

    async def client() -> None:
        http = await HttpConnection.open(endpoints[0].port) if endpoints[0].access else None
        while time.perf_counter() - began < seconds:
            connection = await tally.connect(next(turn), http)
            if connection is not None:
                connection.close()
        if http is not None:
            http.close()

    await asyncio.gather(*(client() for _ in range(at_once)))
    result = tally.result(time.perf_counter() - began)
    spent = cpu_seconds(server_pid) - used
    return {**result, "cpu_us": spent * 1e6 / max(1, result["connects"])}


async def storm(endpoints: Sequence[Endpoint]) -> dict[str, float]:
    """All connect at the same moment, as after a restart, with the tokens they have; until all have joined."""
    tally = Tally()
    began = time.perf_counter()
    connections = await asyncio.gather(*(tally.connect(endpoint, None) for endpoint in endpoints))
    result = tally.result(time.perf_counter() - began)
    close_all(connection for connection in connections if connection is not None)
    return result


async def idle(first: Sequence[Endpoint], more: Sequence[Endpoint], server_pid: int) -> dict[str, float]:
    """Bytes of the server's memory for each of `more` idle connections, after `first` have warmed it up."""
    connections = await connect_all(first)
    await asyncio.sleep(1)
    before = resident_bytes(server_pid)
    connections += await connect_all(more)
    await asyncio.sleep(1)
    grown = resident_bytes(server_pid) - before
    close_all(connections)
    return {"connections": len(more), "bytes": grown / len(more), "server_bytes": before + grown}
