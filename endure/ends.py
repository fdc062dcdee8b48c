"""Two servers on one database: how soon what ends through one server reaches the devices that are connected to the other,
and whether one server's timers and joins leave the other's pairs alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import asyncpg

from endure.run import Run
from endure.server import Server
from harness.load_client import (
    Connection,
    Endpoint,
    HttpConnection,
    Pair,
    Refused,
    both,
    close_all,
    connect,
    connect_all,
    percentile,
    ws_token,
)
from harness.pairing_database import PairingDatabase, User, pairing_endpoint

CODE_TTL_SECONDS = 20
GRACE_SECONDS = 4
# What has not come by then never comes.
PATIENCE_SECONDS = 12.0
MAX_P99_SECONDS = 2.0
MAX_TAKE_OVER_SECONDS = 10.0
MESSAGE_BYTES = 200


@dataclass(slots=True)
class Heard:
    """When each device, by its session id, got a frame with one of the marks. In seconds of the wall clock."""

    marks: Sequence[bytes]
    times: dict[str, float]

    def listen(self, connection: Connection) -> None:
        session_id = json.loads(connection.endpoint.script[1][1])["session_id"]

        def receive(data: bytes) -> None:
            if any(mark in data for mark in self.marks):
                self.times.setdefault(session_id, time.time())

        connection.receive = receive


@dataclass(frozen=True, slots=True)
class Servers:
    """The devices are connected to `here`, unless a drill says otherwise."""

    here: Server
    there: Server
    database: PairingDatabase
    say: Callable[[str], None]

    async def rows(self, statement: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database.url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def pairs(self, count: int) -> tuple[list[Pair], list[Connection]]:
        """Pairs whose devices are connected here."""
        made = await asyncio.to_thread(self.database.add_pairs, self.here.port, count, MESSAGE_BYTES)
        return made, await connect_all(both(made))

    async def report(self, what: str, heard: Heard, happened: Mapping[str, datetime]) -> bool:
        """Wait until all have heard; how long that took since it `happened` to each session id. Whether it is good."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened.keys() <= heard.times.keys() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        waits = sorted(
            max(0.0, heard.times[each] - moment.timestamp())
            for each, moment in happened.items()
            if each in heard.times
        )
        p99 = percentile(waits, 0.99)
        self.say(
            f"{what}: {len(waits)} of {len(happened)} devices heard of it; median {percentile(waits, 0.5):.2f} s,"
            f" 99 % within {p99:.2f} s, longest {max(waits, default=float('nan')):.2f} s"
        )
        return len(waits) == len(happened) > 0 and p99 <= MAX_P99_SECONDS


async def check(run: Run, database: PairingDatabase, pairs: int) -> bool:
    """Whether all devices heard in time, and no server ended or parted what the other has."""
    start = partial(Server, run, database, CODE_TTL=str(CODE_TTL_SECONDS), RECONNECT_GRACE=str(GRACE_SECONDS))
    here, there = await asyncio.to_thread(start), await asyncio.to_thread(start)
    servers = Servers(here, there, database, run.say)
    drills: list[Awaitable[bool]] = [
        _unpaired(servers, pairs, here, "unpaired through their own server"),
        _unpaired(servers, pairs, there, "unpaired through the other server"),
        _ended_by_a_person(servers, pairs),
        _codes(servers, pairs),
        _parted(servers, pairs),
        _moved(servers, pairs),
        _killed(servers, pairs),
    ]
    return all([await drill for drill in drills])


async def _unpaired(servers: Servers, pairs: int, through: Server, what: str) -> bool:
    made, connections = await servers.pairs(pairs)
    heard = Heard((b'"channel_closed"',), {})
    for connection in connections:
        heard.listen(connection)
    rows = await servers.rows("SELECT id, desktop_session FROM pairings WHERE ended_at IS NULL")
    ids = {row["desktop_session"].removeprefix("desktop-"): row["id"] for row in rows}
    http = await HttpConnection.open(through.port)
    for desktop, _ in made:
        subject = json.loads(desktop.script[1][1])["session_id"].removeprefix("desktop-")
        await http.delete(f"/api/pairings/{ids[subject]}", desktop.access)
    http.close()
    good = await servers.report(what, heard, await _ended(servers))
    return await _done(servers, connections) and good


async def _ended_by_a_person(servers: Servers, pairs: int) -> bool:
    _, connections = await servers.pairs(pairs)
    heard = Heard((b'"channel_closed"',), {})
    for connection in connections:
        heard.listen(connection)
    await servers.rows(
        "UPDATE pairings SET state = 'closed', end_reason = 'unpaired', ended_at = clock_timestamp()"
        " WHERE ended_at IS NULL"
    )
    good = await servers.report("ended in the database by a person", heard, await _ended(servers))
    return await _done(servers, connections) and good


async def _ended(servers: Servers) -> dict[str, datetime]:
    """When the pairing of each session id ended."""
    rows = await servers.rows("SELECT desktop_session, mobile_session, ended_at FROM pairings")
    return {
        session: row["ended_at"]
        for row in rows
        if row["ended_at"] is not None
        for session in (row["desktop_session"], row["mobile_session"])
        if session is not None
    }


async def _done(servers: Servers, connections: Sequence[Connection]) -> bool:
    close_all(connections)
    await servers.rows("DELETE FROM pairings")
    return True


async def _codes(servers: Servers, count: int) -> bool:
    """Desktops wait here with their codes: half are redeemed there, half expire by whichever server's timer is first."""
    users = await asyncio.to_thread(servers.database.add_users, count)
    http, other = await HttpConnection.open(servers.here.port), await HttpConnection.open(servers.there.port)
    claimed, expired = Heard((b'"pairing_claimed"',), {}), Heard((b'"expired"',), {})
    connections, codes = [], []
    for number, user in enumerate(users):
        connection, code = await _waiting(http, servers.here.port, user)
        (claimed if number % 2 else expired).listen(connection)
        connections.append(connection)
        codes.append(code)
    for user, code in list(zip(users, codes, strict=True))[1::2]:
        body = json.dumps({"code": code, "mobile_session_id": f"mobile-{user.subject}"})
        await other.post("/api/pair-device", body, user.access)
    rows = await servers.rows(
        "SELECT desktop_session, redeemed_at FROM pairings WHERE redeemed_at IS NOT NULL"
    )
    redeemed = {row["desktop_session"]: row["redeemed_at"] for row in rows}
    good = await servers.report("redeemed through the other server", claimed, redeemed)
    for each in (http, other):
        each.close()
    while await servers.rows("SELECT FROM pairings WHERE state = 'pending'"):
        await asyncio.sleep(0.05)
    rows = await servers.rows("SELECT desktop_session, ended_at FROM pairings WHERE state = 'expired'")
    ended = {row["desktop_session"]: row["ended_at"] for row in rows}
    good = await servers.report("expired codes", expired, ended) and good
    return await _done(servers, connections) and good


async def _waiting(http: HttpConnection, port: int, user: User) -> tuple[Connection, str]:
    """A desktop that waits in its channel, and its code."""
    session = f"desktop-{user.subject}"
    _, body = await http.post(
        "/api/generate-pair-code", json.dumps({"desktop_session_id": session}), user.access
    )
    code = json.loads(body)["code"]
    device = {"device_type": "desktop", "session_id": session}
    endpoint = pairing_endpoint(f"ws://127.0.0.1:{port}/ws", device, f"pair-{code}", MESSAGE_BYTES)
    endpoint = replace(endpoint, access=user.access, token_path="/api/auth/ws-token")
    token = await ws_token(http, endpoint)
    return await connect(replace(endpoint, url=endpoint.with_token(token or ""))), code


def _at(endpoint: Endpoint, server: Server) -> Endpoint:
    """The same device at that server."""
    return replace(endpoint, url=endpoint.url.replace(f":{endpoint.port}/", f":{server.port}/"))


async def _parted(servers: Servers, count: int) -> bool:
    """The desktop is here, and its phone goes there."""
    made = await asyncio.to_thread(servers.database.add_pairs, servers.here.port, count, MESSAGE_BYTES)
    connections = await connect_all([desktop for desktop, _ in made])
    refused = 0
    for _, mobile in made[: min(count, 20)]:
        try:
            async with asyncio.timeout(2):
                connections.append(await connect(_at(mobile, servers.there)))
        except (TimeoutError, Refused):
            refused += 1
    tried = min(count, 20)
    servers.say(f"a phone at the other server than its desktop: {refused} of {tried} joins refused")
    return await _done(servers, connections) and refused == tried


async def _killed(servers: Servers, count: int) -> bool:
    """The server is killed, and its devices come to the other one at once: they try until they are let in."""
    made, connections = await servers.pairs(count)
    servers.here.process.kill()
    began = time.monotonic()
    again = await connect_all([_at(endpoint, servers.there) for endpoint in both(made)], at_once=2 * count)
    seconds = time.monotonic() - began
    servers.say(
        f"one server killed: {len(again)} of {2 * count} devices in their channels at the other after {seconds:.1f} s"
    )
    return await _done(servers, [*connections, *again]) and seconds <= MAX_TAKE_OVER_SECONDS


async def _moved(servers: Servers, count: int) -> bool:
    """Pairs leave this server, and meet again at the other: they are there longer than the grace."""
    made, connections = await servers.pairs(count)
    close_all(connections)
    moved = await connect_all([_at(endpoint, servers.there) for endpoint in both(made)])
    heard = Heard((b'"channel_closed"',), {})
    for connection in moved:
        heard.listen(connection)
    await asyncio.sleep(GRACE_SECONDS * 2 + 2)
    rows = await servers.rows("SELECT FROM pairings WHERE ended_at IS NULL")
    servers.say(
        f"moved to the other server: {len(rows)} of {count} pairings live after the grace,"
        f" {len(heard.times)} devices heard of an end"
    )
    return await _done(servers, moved) and len(rows) == count and not heard.times
