"""One outage of the database, as HTTP clients and live channels meet it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg

from harness.fault_proxy import FaultProxy
from harness.load_client import Connection, HttpConnection, percentile, read_metrics, sent_times
from harness.postgres import Postgres

# What is wanted: of a call while the outage is known, of a call before, and of the time until a code is made again.
REFUSAL_MS, FIRST_SECONDS, RECOVERY_SECONDS = 50.0, 6.0, 5.0
# Clients: more than the pool has connections; and, once the outage is known, so many with a pause between calls.
FIRST_CLIENTS, CLIENTS, PAUSE_SECONDS = 24, 8, 0.02
MESSAGE_INTERVAL_SECONDS = 0.05
TIMEOUT_SECONDS = 30.0

Action = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds`: for how long clients call while the outage is known."""

    title: str
    begin: Action
    end: Action
    seconds: float


async def as_superuser(server: Postgres, *statements: str) -> list[asyncpg.Record]:
    """Run the statements; the rows of the last."""
    connection = await asyncpg.connect(server.url())
    try:
        rows: list[asyncpg.Record] = []
        for statement in statements:
            rows = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()


class Messages:
    """Messages between the pairs all the time: how many have arrived, and the longest delay."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = connections
        self.sent = self.arrived = 0
        self.longest_ms = 0.0
        for connection in connections:
            connection.receive = self._received

    async def send_all(self) -> None:
        """One message of each pair in each interval, there and back in turn."""
        for turn in itertools.count():
            for connection in self.connections[turn % 2 :: 2]:
                connection.send(connection.endpoint.message(time.perf_counter_ns()))
                self.sent += 1
            await asyncio.sleep(MESSAGE_INTERVAL_SECONDS)

    def _received(self, data: bytes) -> None:
        for sent in sent_times(data):
            self.arrived += 1
            self.longest_ms = max(self.longest_ms, (time.perf_counter_ns() - sent) / 1e6)

    async def lost(self) -> int:
        """How many of those sent until now do not arrive."""
        sent = self.sent
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.arrived < sent and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return max(0, sent - self.arrived)


@dataclass(slots=True)
class Outage:
    """One fault, and the answers of the server on that port meanwhile. `accesses`: access tokens.

    `first`: seconds and status of the calls before the outage was known; `refused_ms`: of the calls after.
    """

    port: int
    accesses: Sequence[str]
    messages: Messages
    known: asyncio.Event = field(default_factory=asyncio.Event)
    first: list[tuple[float, int]] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)

    async def run(
        self, fault: Fault, proxies: Sequence[FaultProxy], last: Postgres, say: Callable[[str], None]
    ) -> bool:
        """Whether all calls were refused in time, and all was well soon after. `last`: the server that is then in use."""
        sent, self.messages.longest_ms = self.messages.sent, 0.0
        first = [asyncio.ensure_future(self._call_until_known(number)) for number in range(FIRST_CLIENTS)]
        await fault.begin()
        began = time.monotonic()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (await read_metrics(self.port))["pairing_database_up"]:
                await asyncio.sleep(0.01)
        opened = time.monotonic() - began
        self.known.set()
        until = time.monotonic() + fault.seconds
        await asyncio.gather(*first, *(self._call_until(number, until) for number in range(CLIENTS)))
        await fault.end()
        recovery = await self._recovery()
        for proxy in proxies:
            # The network resets the connections that it has silenced, too.
            for line in [line for line in proxy.lines if line.silent]:
                line.reset()
        used, open_connections, in_transaction = await self._connections(last)
        lost = await self.messages.lost()
        slowest, p99 = max(self.refused_ms, default=0.0), percentile(sorted(self.refused_ms), 0.99)
        longest, status = max(self.first)
        over = sum(ms >= REFUSAL_MS for ms in self.refused_ms)
        say(
            f"{fault.title}: known after {opened:.1f} s, the longest call until then took {longest:.1f} s (HTTP {status});"
            f" {len(self.refused_ms)} calls in {fault.seconds:g} s got 503 with Retry-After, after {slowest:.1f} ms at most"
            f" (99 % within {p99:.0f} ms, {over} over {REFUSAL_MS:g}); well {recovery:.1f} s after its return;"
            f" {used:g} connections in use, {open_connections} open, {in_transaction} in a transaction;"
            f" {self.messages.sent - sent} messages, {lost} lost, the latest after {self.messages.longest_ms:.0f} ms"
        )
        for wrong in sorted(self.wrong)[:5]:
            say(f"  {wrong}")
        in_time = slowest < REFUSAL_MS and longest <= FIRST_SECONDS and recovery <= RECOVERY_SECONDS
        return in_time and not (self.wrong or used or in_transaction or lost)

    async def _call_until_known(self, number: int) -> None:
        """Call without a pause until the outage is known, each time from another account."""
        http = await HttpConnection.open(self.port)
        for turn in itertools.count(number, FIRST_CLIENTS):
            if self.known.is_set():
                break
            status, seconds = await self._call(http, 0, turn)
            self.first.append((seconds, status))
        http.close()

    async def _call_until(self, number: int, until: float) -> None:
        """Repeat all calls that need the database."""
        http = await HttpConnection.open(self.port)
        for turn in itertools.count(number):
            if time.monotonic() >= until:
                break
            status, seconds = await self._call(http, turn, turn)
            self.refused_ms.append(seconds * 1000)
            if status != 503 or b"\nretry-after:" not in http.head.lower():
                self.wrong.add(f"HTTP {status} instead of 503 with Retry-After")
            await asyncio.sleep(PAUSE_SECONDS)
        http.close()

    async def _call(self, http: HttpConnection, kind: int, turn: int) -> tuple[int, float]:
        """The status, and the seconds it took. `kind` chooses the call, `turn` the account and the address."""
        name = uuid4().hex
        login = {"username": f"nobody-{name}", "password": "long enough to be one"}
        path, body = (
            ("generate-pair-code", {"desktop_session_id": f"desktop-{name}"}),
            ("pair-device", {"code": "123456", "mobile_session_id": f"mobile-{name}"}),
            ("auth/login", login),
            ("auth/register", login),
        )[kind % 4]
        access = self.accesses[turn % len(self.accesses)] if kind % 4 < 2 else ""
        began = time.perf_counter()
        address = f"10.1.{turn >> 8 & 255}.{turn & 255}"
        status, _ = await http.post(f"/api/{path}", json.dumps(body), access, address)
        return status, time.perf_counter() - began

    async def _recovery(self) -> float:
        """Seconds until a code is made again."""
        began = time.monotonic()
        http = await HttpConnection.open(self.port)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            for turn in itertools.count():
                status, _ = await self._call(http, 0, turn)
                if status == 200:
                    break
                await asyncio.sleep(0.01)
        http.close()
        return time.monotonic() - began

    async def _connections(self, last: Postgres) -> tuple[float, int, int]:
        """Those in use, once none is or time is up; and as PostgreSQL sees them: all, and those in a transaction."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            used = (await read_metrics(self.port))['pairing_database_connections{state="used"}']
            rows = await as_superuser(
                last, "SELECT state FROM pg_stat_activity WHERE application_name = 'pairing-server'"
            )
            in_transaction = sum(str(row["state"]).startswith("idle in") for row in rows)
            if not (used or in_transaction) or time.monotonic() > deadline:
                return used, len(rows), in_transaction
            await asyncio.sleep(0.05)
