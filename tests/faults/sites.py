"""Nodes in this process on any database, the devices on them, and what must be true of both after a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

from pairing_server.config import Configuration
from pairing_server.security.keyfile import KeyFile
from pairing_server.server.server import Node
from tests import leaks
from tests.devices import Device, Site

T = TypeVar("T")
LOGIN = {"username": "nobody", "password": "long enough to be one"}


async def started(
    config: Configuration, database_url: str, keyfile: KeyFile | None = None, *, timers: bool = False
) -> Site:
    node = Node(config, database_url, keyfile)
    [(_, port), *_] = await node.start(timers=timers)
    return Site(node, port)


async def ending(site: Site, database_url: str) -> None:
    """Stop it. What it has written to the audit log is looked at as that of every node."""
    await site.close()
    await site.node.stop()
    await leaks.RUN.read_audit(database_url)


async def ready(site: Site) -> None:
    """Return once it can pair."""
    while (await site.get("/readyz")).status != 200:
        pass


async def known_to_be_away(site: Site) -> str:
    """Ask until the server knows that the database is away; why it is."""
    while site.node.database.breaker.outage is None:
        await asyncio.gather(*(site.get("/readyz"), *(site.post("/api/auth/login", LOGIN) for _ in range(3))))
    return site.node.database.breaker.outage.reason


async def sessions(url: str) -> list[dict[str, Any]]:
    """The server's connections to the database, as PostgreSQL sees them."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT pid, state FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'pairing-server'"
        )
        return [dict(row) for row in rows]
    finally:
        await connection.close()


def pooled(site: Site) -> set[int]:
    """The connections that the server's pools hold just now, by PostgreSQL's numbers."""
    pools = [database.engine.pool for database in (site.node.database, site.node.backend.reading)]
    records = [record for pool in pools for record in pool._pool._queue._queue]  # type: ignore[attr-defined]
    kept = [record.dbapi_connection for record in records if record.dbapi_connection is not None]
    return {adapted.driver_connection.get_server_pid() for adapted in kept}


@dataclass
class Talk:
    """Two devices that go on talking, each message numbered, and everything that arrives checked."""

    desktop: Device
    mobile: Device
    sent: int = 0
    heard: int = 0

    async def say(self, count: int = 1) -> None:
        """Messages there and back; each arrives, once and in order."""
        for speaker, hearer in ((self.desktop, self.mobile), (self.mobile, self.desktop)):
            first = self.sent + 1
            self.sent += count
            for number in range(first, self.sent + 1):
                speaker.socket.send({"type": "channel_message", "payload": {"n": number}})
            for number in range(first, self.sent + 1):
                message = await hearer.socket.expect("channel_message")
                assert message["payload"] == {"n": number}
                self.heard += 1

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work comes to; meanwhile they talk, fifty times a second, and not one message is lost."""
        working = asyncio.ensure_future(work)
        while not working.done():
            await self.say()
            await asyncio.wait([working], timeout=0.02)
        return await working
