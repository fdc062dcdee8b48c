"""Devices that connect: how many in a second, all at once, and what the server holds of the memory for each."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.connections import Connection, HandshakeFailed, Http, Refused, close_all, port_of, take, take_all
from bench.machine import cpu_seconds, resident_bytes
from bench.traffic import percentile
from bench.wire import Seat

TOKEN_TRIES = 20


@dataclass(slots=True)
class Tally:
    """What became of the connects. `times`: nanoseconds of each that succeeded."""

    times: list[int] = field(default_factory=list)
    retries: int = 0
    handshakes_failed: int = 0
    refused: int = 0

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


async def connect(seat: Seat, http: Http | None, tally: Tally) -> Connection | None:
    """A full connect: the token if one is needed, the upgrade, and the seat's script. None if it failed."""
    began = time.perf_counter_ns()
    try:
        if http is not None:
            seat = replace(seat, url=await _with_fresh_token(seat, http, tally))
        connection = await take(seat, "")
    except HandshakeFailed:
        tally.handshakes_failed += 1
    except Refused:
        tally.refused += 1
    else:
        tally.times.append(time.perf_counter_ns() - began)
        tally.retries += connection.retries
        return connection
    return None


async def _with_fresh_token(seat: Seat, http: Http, tally: Tally) -> str:
    """The seat's address with a token made now in the place of the one it has."""
    address, _, _ = seat.url.partition("?token=")
    return f"{address}?token={await _token(seat, http, tally)}"


async def _token(seat: Seat, http: Http, tally: Tally) -> str:
    for _ in range(TOKEN_TRIES):
        status, body = await http.post(seat.token_path, "{}", seat.access)
        if status == 200:
            token: str = json.loads(body)["token"]
            return token
        tally.retries += 1
        await asyncio.sleep(0.2)
    raise Refused("no token")


async def one_after_another(
    seats: Sequence[Seat], at_once: int, seconds: float, server_pid: int
) -> dict[str, float]:
    """Connect so many at once, each anew as soon as it has joined; connects a second, CPU of each in µs."""
    tally = Tally()
    turn = itertools.cycle(seats)
    began, used = time.perf_counter(), cpu_seconds(server_pid)

    async def devices() -> None:
        http = await Http.open(port_of(seats[0].url)) if seats[0].access else None
        while time.perf_counter() - began < seconds:
            connection = await connect(next(turn), http, tally)
            if connection is not None:
                connection.close()
        if http is not None:
            http.close()

    await asyncio.gather(*(devices() for _ in range(at_once)))
    result = tally.result(time.perf_counter() - began)
    spent = cpu_seconds(server_pid) - used
    return {**result, "cpu_us": spent * 1e6 / max(1, result["connects"])}


async def storm(seats: Sequence[Seat]) -> dict[str, float]:
    """All connect at the same moment, as after a restart, with the tokens they have; until all have joined."""
    tally = Tally()
    began = time.perf_counter()
    connections = await asyncio.gather(*(connect(seat, None, tally) for seat in seats))
    result = tally.result(time.perf_counter() - began)
    close_all(connection for connection in connections if connection is not None)
    return result


async def idle(first: Sequence[Seat], more: Sequence[Seat], server_pid: int) -> dict[str, float]:
    """Bytes of the server's memory for each of `more` idle connections, once `first` have warmed it up."""
    connections = await take_all(first)
    await asyncio.sleep(1)
    before = resident_bytes(server_pid)
    connections += await take_all(more)
    await asyncio.sleep(1)
    grown = resident_bytes(server_pid) - before
    close_all(connections)
    return {"connections": len(more), "bytes": grown / len(more), "server_bytes": before + grown}
