"""Real servers that stop, become read-only, are followed by their standby, or have no connection left."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import pytest
from tornado.ioloop import IOLoop

from harness.postgres import Postgres, await_replication, primary_and_standby
from pairing_server.db import migrations
from tests.conftest import CONFIGURATION, execute
from tests.devices import Site
from tests.faults.sites import Talk, ending, known_to_be_away, ready, started

CODE = {"desktop_session_id": "desktop-session-9"}


@dataclass
class Place:
    """Two servers of PostgreSQL, and a node that knows both."""

    primary: Postgres
    standby: Postgres
    site: Site

    async def down(self) -> list[str]:
        return [str(event["reason"]) for event in await self.site.events("db.down")]

    async def does(self, *work: str) -> None:
        """Let the servers do something, without holding up anybody: "primary stop", "standby promote" …"""
        for words in work:
            name, act, *options = words.split()
            await asyncio.to_thread(getattr(getattr(self, name), act), *options)

    async def tell(self, server: Postgres, *statements: str) -> None:
        await asyncio.to_thread(execute, server.url(), *statements)

    async def let_write(self, allowed: bool) -> None:
        """Whether the primary takes writes. Its sessions know it when this returns."""
        change = (
            "RESET default_transaction_read_only" if allowed else "SET default_transaction_read_only = on"
        )
        await self.tell(self.primary, f"ALTER SYSTEM {change}", "SELECT pg_reload_conf()")
        # Who connects is told what all others have been told before.
        while await self._writes() is not allowed:
            pass

    async def _writes(self) -> bool:
        connection = await asyncpg.connect(self.primary.url())
        try:
            return await connection.fetchval("SHOW default_transaction_read_only") == "off"
        finally:
            await connection.close()


@pytest.fixture
def place(io_loop: IOLoop, postgres: str) -> Iterator[Place]:
    """`postgres` has seen to it that its programs can be run."""
    folder = Path(tempfile.mkdtemp(prefix="pairing-failover-", dir="/tmp"))
    with primary_and_standby(folder) as (primary, standby):
        execute(primary.url(), "CREATE ROLE pairing LOGIN", "CREATE DATABASE pairing OWNER pairing")
        migrations.migrate(primary.url("pairing", "pairing"))
        url = f"postgresql://pairing@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/pairing"
        config = replace(CONFIGURATION, message_rate=100_000, message_burst=100_000, frame_rate=100_000)
        site: Site = io_loop.run_sync(lambda: started(config, url))
        found = Place(primary, standby, site)
        yield found
        last = next(server for server in (primary, standby) if server.running)
        io_loop.run_sync(lambda: ending(site, last.url(database="pairing")))


async def test_a_database_that_stops_and_starts_again(place: Place) -> None:
    account = await place.site.account()
    talk = Talk(*await place.site.pair(account))
    await talk.during(place.does("primary stop"))
    assert await talk.during(known_to_be_away(place.site)) in ("unreachable", "read_only")
    await talk.during(place.does("primary start"))
    await talk.during(ready(place.site))
    await place.site.pair(account)
    assert await place.site.events("db.failover") == []
    assert len(await place.down()) == 1


async def test_the_standby_takes_over_and_writes_go_there_without_a_restart(place: Place) -> None:
    account = await place.site.account()
    talk = Talk(*await place.site.pair(account))
    await talk.during(await_replication(place.primary))
    await talk.during(place.does("primary stop immediate", "standby promote"))
    await talk.during(ready(place.site))
    await place.site.pair(account)
    assert len(await place.site.events("db.failover")) == 1
    await talk.say(10)


async def test_a_primary_that_becomes_read_only_while_connected_is_left_for_the_new_one(place: Place) -> None:
    """Its connections stay open and answer; only what is written fails."""
    site = place.site
    account = await site.account()
    talk = Talk(*await site.pair(account))
    await await_replication(place.primary)
    await place.does("standby promote")
    await place.let_write(False)
    await talk.during(ready(site))
    while (await talk.during(site.post("/api/generate-pair-code", CODE, account.token))).status != 200:
        pass
    await site.pair(account)
    assert set(await place.down()) <= {"read_only"}
    assert len(await site.events("db.failover")) == 1


async def test_a_read_only_database_without_another_is_away(place: Place) -> None:
    site = place.site
    account = await site.account()
    talk = Talk(*await site.pair(account))
    await place.does("standby stop")
    await place.let_write(False)
    assert await talk.during(known_to_be_away(site)) == "read_only"
    assert (await site.get("/readyz")).body["details"] == {"reasons": ["database_read_only"]}
    await place.let_write(True)
    await talk.during(ready(site))
    await site.pair(account)


async def test_a_database_with_no_connection_left_is_away(place: Place) -> None:
    site = place.site
    account = await site.account()
    talk = Talk(*await site.pair(account))
    await place.does("standby stop")
    ending_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pairing'"
    await place.tell(place.primary, "ALTER DATABASE pairing CONNECTION LIMIT 0", ending_all)
    assert await talk.during(known_to_be_away(site)) == "full"
    await place.tell(place.primary, "ALTER DATABASE pairing CONNECTION LIMIT -1")
    await talk.during(ready(site))
    await site.pair(account)
