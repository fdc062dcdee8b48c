"""One outage of the database, as callers and live channels meet it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg

from bench.connections import Connection, Http
from bench.traffic import percentile
from bench.wire import MARK, TIME_DIGITS
from tests.faults.cluster import Postgres
from tests.faults.proxy import FaultProxy

# What is wanted: of a call that begins when the breaker is open, of those before, and of the time until all is well.
TOLD_MS, FIRST_S, WELL_S = 50.0, 6.0, 5.0
# More than there are connections to the database; and, once it is known to be away, so many with a pause between calls.
CROWD, ASKERS, PAUSE = 24, 8, 0.02
# A message of each pair, there and back in turn.
EVERY = 0.05
PATIENCE = 30.0

Act = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds`: for how long the server is asked while the database is known to be away."""

    title: str
    begin: Act
    end: Act
    seconds: float


async def superuser(server: Postgres, *statements: str, database: str = "postgres") -> list[asyncpg.Record]:
    """Run the statements as a superuser; the rows of the last."""
    connection = await asyncpg.connect(server.url(database=database))
    try:
        found: list[asyncpg.Record] = []
        for statement in statements:
            found = await connection.fetch(statement)
        return found
    finally:
        await connection.close()


class Talk:
    """Pairs that talk all the time; what has arrived, and how late at most."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = connections
        self.sent = self.arrived = 0
        self.latest_ms = 0.0
        for connection in connections:
            connection.receive = self._received

    async def go_on(self) -> None:
        for turn in itertools.count():
            for connection in self.connections[turn % 2 :: 2]:
                seat = connection.seat
                connection.send(f"{seat.before}{time.perf_counter_ns():016x}{seat.after}".encode())
                self.sent += 1
            await asyncio.sleep(EVERY)

    def _received(self, data: bytes) -> None:
        if (at := data.find(MARK)) >= 0:
            self.arrived += 1
            sent = int(data[at + len(MARK) : at + len(MARK) + TIME_DIGITS], 16)
            self.latest_ms = max(self.latest_ms, (time.perf_counter_ns() - sent) / 1e6)

    async def lost(self) -> int:
        """How many of those sent up to now have not arrived."""
        sent = self.sent
        until = time.monotonic() + PATIENCE
        while self.arrived < sent and time.monotonic() < until:  # noqa: ASYNC110 (it is another process)
            await asyncio.sleep(0.01)
        return max(0, sent - self.arrived)


@dataclass(slots=True)
class Trial:
    """One fault, and what callers get from the server on that port meanwhile."""

    port: int
    users: Sequence[str]
    talk: Talk
    known: asyncio.Event = field(default_factory=asyncio.Event)
    first: list[tuple[float, int]] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)

    async def suffer(
        self, fault: Fault, ways: Sequence[FaultProxy], last: Postgres, say: Callable[[str], None]
    ) -> bool:
        sent, self.talk.latest_ms = self.talk.sent, 0.0
        crowd = [asyncio.ensure_future(self._insist(number)) for number in range(CROWD)]
        await fault.begin()
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while await self._metric("pairing_database_up"):  # noqa: ASYNC110 (it is another process)
                await asyncio.sleep(0.01)
        opened = time.monotonic() - began
        self.known.set()
        until = time.monotonic() + fault.seconds
        await asyncio.gather(*crowd, *(self._ask(number, until) for number in range(ASKERS)))
        await fault.end()
        well = await self._well()
        for way in ways:
            # The network forgets those whom it has silenced, too.
            for line in [line for line in way.lines if line.silent]:
                line.reset()
        used, sessions, in_transaction = await self._connections(last)
        lost = await self.talk.lost()
        slowest, p99 = max(self.told, default=0.0), percentile(sorted(map(round, self.told)), 0.99)
        longest, status = max(self.first)
        over = sum(ms >= TOLD_MS for ms in self.told)
        say(
            f"{fault.title}: known after {opened:.1f} s, the longest call until then took {longest:.1f} s (HTTP {status});"
            f" {len(self.told)} calls in {fault.seconds:g} s got 503 with Retry-After, after {slowest:.1f} ms at most"
            f" (99 % within {p99} ms, {over} over {TOLD_MS:g}); well {well:.1f} s after its return;"
            f" {used:g} connections in use, {sessions} open, {in_transaction} in a transaction;"
            f" {self.talk.sent - sent} messages, {lost} lost, the latest after {self.talk.latest_ms:.0f} ms"
        )
        for wrong in sorted(self.wrong)[:5]:
            say(f"  {wrong}")
        in_time = slowest < TOLD_MS and longest <= FIRST_S and well <= WELL_S
        return in_time and not (self.wrong or used or in_transaction or lost)

    async def _insist(self, number: int) -> None:
        """Call without a pause until it is known that the database is away, as somebody else each time."""
        http = await Http.open(self.port)
        for turn in itertools.count(number, CROWD):
            if self.known.is_set():
                break
            status, seconds = await self._call(http, 0, turn)
            self.first.append((seconds, status))
        http.close()

    async def _ask(self, number: int, until: float) -> None:
        """All calls that need the database, again and again."""
        http = await Http.open(self.port)
        for turn in itertools.count(number):
            if time.monotonic() >= until:
                break
            status, seconds = await self._call(http, turn, turn)
            self.told.append(seconds * 1000)
            if status != 503 or b"\nretry-after:" not in http.head.lower():
                self.wrong.add(f"HTTP {status} instead of 503 with Retry-After")
            await asyncio.sleep(PAUSE)
        http.close()

    async def _call(self, http: Http, kind: int, turn: int) -> tuple[int, float]:
        """The status, and the seconds it took. `kind` chooses what is called, `turn` by whom."""
        name = uuid4().hex
        login = {"username": f"nobody-{name}", "password": "long enough to be one"}
        path, body = (
            ("generate-pair-code", {"desktop_session_id": f"desktop-{name}"}),
            ("pair-device", {"code": "123456", "mobile_session_id": f"mobile-{name}"}),
            ("auth/login", login),
            ("auth/register", login),
        )[kind % 4]
        access = self.users[turn % len(self.users)] if kind % 4 < 2 else ""
        address = f"10.1.{turn >> 8 & 255}.{turn & 255}"
        began = time.perf_counter()
        status, _ = await http.post(f"/api/{path}", json.dumps(body), access, address)
        return status, time.perf_counter() - began

    async def _well(self) -> float:
        """Seconds until a code is made again."""
        began = time.monotonic()
        http = await Http.open(self.port)
        async with asyncio.timeout(PATIENCE):
            for turn in itertools.count():
                status, _ = await self._call(http, 0, turn)
                if status == 200:
                    break
                await asyncio.sleep(0.01)
        http.close()
        return time.monotonic() - began

    async def _connections(self, last: Postgres) -> tuple[float, int, int]:
        """Those in use, as soon as none is; and what PostgreSQL sees: all, and those in a transaction."""
        until = time.monotonic() + PATIENCE
        while True:
            used = await self._metric('pairing_database_connections{state="used"}')
            rows = await superuser(
                last,
                "SELECT state FROM pg_stat_activity WHERE application_name = 'pairing-server'",
            )
            in_transaction = sum(str(row["state"]).startswith("idle in") for row in rows)
            if not (used or in_transaction) or time.monotonic() > until:
                return used, len(rows), in_transaction
            await asyncio.sleep(0.05)

    async def _metric(self, name: str) -> float:
        http = await Http.open(self.port)
        _, body = await http.get("/metrics")
        http.close()
        return next(
            float(line.rpartition(" ")[2])
            for line in body.decode().splitlines()
            if line.startswith(f"{name} ")
        )
