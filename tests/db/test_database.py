"""The way to PostgreSQL: connections that break, transactions that fail, and a pool that is used up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from tornado.ioloop import IOLoop

from harness.fault_proxy import FaultProxy
from pairing_server.db import database as module
from pairing_server.db.circuit_breaker import DatabaseUnavailable
from pairing_server.db.connection_parameters import read
from pairing_server.db.database import Database, PoolLimits
from pairing_server.errors import Unavailable
from tests.conftest import as_running, execute_within

BACKEND = "SELECT pg_backend_pid() AS pid"


@pytest.fixture
def narrow(io_loop: IOLoop, database_url: str) -> Iterator[Database]:
    """A database with two connections at most, and a short wait for one."""
    made = Database(database_url, limits=PoolLimits(2, wait=0.05))
    yield made
    io_loop.run_sync(made.close)


async def backend(database: Database) -> int:
    """The process in PostgreSQL that serves the next who asks."""
    row = await database.once(BACKEND)
    assert row is not None
    return int(row["pid"])


async def end_all(url: str, *, but: int = 0) -> None:
    """End the connections to the test's database from outside, and return when they are gone."""
    admin = await asyncpg.connect(url)
    try:
        await admin.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), $1)",
            but,
        )
    finally:
        await admin.close()


async def count_of(database: Database, username: str) -> int:
    row = await database.once("SELECT count(*) FROM users WHERE username = $1", username)
    assert row is not None
    return int(row[0])


def adding(username: str) -> str:
    return (
        "INSERT INTO users (id, username, username_key, password_hash, created_at)"
        f" VALUES (gen_random_uuid(), '{username}', '{username}', 'none', now())"
    )


async def test_idle_connections_that_broke_are_replaced_without_an_error(
    database: Database, database_url: str
) -> None:
    await database.warm()
    before = await backend(database)
    await end_all(database_url)
    after = await backend(database)
    assert after != before
    await end_all(database_url)
    async with database.transaction() as conn:
        assert (await conn.execute(text(BACKEND))).scalar_one() not in (before, after)


async def test_a_connection_found_broken_by_its_first_statement_is_replaced(
    database: Database, database_url: str
) -> None:
    async with database.direct() as direct:
        broken = direct.driver
        pid = broken.get_server_pid()
    # As when the network has lost it, this side does not know yet. What arrives from the server meanwhile is not heard before something is sent.
    broken._transport.pause_reading()
    await end_all(database_url)
    broken._transport.resume_reading()
    assert not broken.is_closed()
    async with database.direct() as direct:
        assert direct.driver.get_server_pid() != pid


async def test_what_is_sent_a_second_time_may_be_another_statement(
    database: Database, database_url: str
) -> None:
    async with database.direct() as direct:
        broken = direct.driver
    first = await database.once("SELECT 1", again="SELECT 2")
    broken._transport.pause_reading()
    await end_all(database_url)
    broken._transport.resume_reading()
    second = await database.once("SELECT 1", again="SELECT 2")
    assert first is not None
    assert second is not None
    assert (first[0], second[0]) == (1, 2)


async def test_a_connection_lost_in_the_middle_of_a_transaction_is_an_error(
    database: Database, database_url: str
) -> None:
    with pytest.raises(Unavailable):
        async with database.transaction() as conn:
            await conn.execute(text(adding("lost")))
            await end_all(database_url)
            await conn.execute(text("SELECT 1"))
    assert await count_of(database, "lost") == 0


async def test_both_views_of_a_raw_connection_are_in_one_transaction(database: Database) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with database.direct() as direct:
            await direct.conn.execute(text(adding("by-sqlalchemy")))
            await direct.driver.execute(adding("by-the-driver"))
            await direct.driver.fetchrow("SELECT 1/0")
    assert await count_of(database, "by-sqlalchemy") == await count_of(database, "by-the-driver") == 0
    async with database.direct() as direct:
        await direct.conn.execute(text(adding("by-sqlalchemy")))
        await direct.driver.execute(adding("by-the-driver"))
    assert await count_of(database, "by-sqlalchemy") == await count_of(database, "by-the-driver") == 1


async def test_a_transaction_whose_error_was_swallowed_is_not_taken_for_committed(database: Database) -> None:
    with pytest.raises(RuntimeError, match="not committed"):
        async with database.transaction() as conn:
            await conn.execute(text(adding("half")))
            with pytest.raises(DBAPIError):
                await conn.execute(text("SELECT 1/0"))
    assert await count_of(database, "half") == 0


async def test_after_an_error_the_connection_is_used_again_and_is_in_no_transaction(
    narrow: Database,
) -> None:
    pid = await backend(narrow)
    for _ in range(5):
        with pytest.raises(KeyError):
            async with narrow.transaction() as conn:
                await conn.execute(text(adding("undone")))
                raise KeyError
    async with narrow.direct() as direct:
        assert direct.driver.get_server_pid() == pid
        assert await direct.driver.fetchval("SELECT pg_current_xact_id_if_assigned()") is None
    assert await count_of(narrow, "undone") == 0


async def test_a_transaction_that_times_out_leaves_no_connection_open(
    narrow: Database, database_url: str
) -> None:
    started = asyncio.Event()

    async def long() -> None:
        async with narrow.direct() as direct:
            await direct.driver.execute(adding("cut-off"))
            started.set()
            await direct.driver.execute("SELECT pg_sleep(60)")

    for _ in range(5):
        started.clear()
        task = asyncio.ensure_future(long())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await count_of(narrow, "cut-off") == 0
    admin = await asyncpg.connect(database_url)
    try:
        open_ones = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
    finally:
        await admin.close()
    assert open_ones == 0


async def test_a_wait_for_a_connection_that_times_out_takes_none(narrow: Database) -> None:
    async with narrow.direct(), narrow.direct():
        with pytest.raises(Unavailable):
            await narrow.once(BACKEND)
        with pytest.raises(Unavailable):
            async with narrow.transaction():
                raise AssertionError("there is no third connection")
    async with narrow.direct() as one, narrow.direct() as other:
        assert one.driver is not other.driver


async def test_more_transactions_than_connections_wait_for_each_other(database_url: str) -> None:
    patient = Database(database_url, limits=PoolLimits(2))
    try:
        pids = await asyncio.gather(*(backend(patient) for _ in range(50)))
    finally:
        await patient.close()
    assert len(set(pids)) == 2


async def test_a_statement_whose_connection_is_lost_is_sent_once_more_and_no_oftener(
    database: Database,
) -> None:
    await database.once("CREATE SEQUENCE tries")
    ending = """SELECT tries, CASE WHEN tries IN (1, 3, 4) THEN pg_terminate_backend(pg_backend_pid()) END
                FROM nextval('tries') AS tries"""
    row = await database.once(ending)
    assert row is not None
    assert row["tries"] == 2
    with pytest.raises(Unavailable):
        await database.once(ending)
    row = await database.once(ending)
    assert row is not None
    assert row["tries"] == 5


async def test_during_an_outage_every_call_fails_at_once(database_url: str) -> None:
    away = Database(database_url.replace("?host=", "?host=/nonexistent"))
    try:
        await away.warm()
        for _ in range(module.POOL_SIZE + 1):
            with pytest.raises(Unavailable):
                await away.once(BACKEND)
            with pytest.raises(Unavailable):
                async with away.transaction():
                    raise AssertionError("there is no database")
    finally:
        await away.close()


async def test_a_service_that_forbids_the_functions_of_the_wal_is_used_all_the_same(
    database_url: str,
) -> None:
    await execute_within(
        database_url,
        "REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn(), pg_walfile_name(pg_lsn) FROM PUBLIC",
    )
    heard: list[str] = []
    database = Database(as_running(database_url), on_outage=lambda state, *_: heard.append(state))
    try:
        for _ in range(2):
            await database.ready()
        await database._probe()
        assert (database.breaker.outage, heard) == (None, [])
    finally:
        await database.close()


@asynccontextmanager
async def full_disk(url: str) -> AsyncIterator[None]:
    """Reads succeed, and what needs a new file fails as on a full disk."""
    await execute_within(
        url,
        """CREATE FUNCTION full_disk() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$""",
        "CREATE EVENT TRIGGER full_disk ON ddl_command_start EXECUTE FUNCTION full_disk()",
    )
    try:
        yield
    finally:
        await execute_within(url, "DROP EVENT TRIGGER full_disk", "DROP FUNCTION full_disk")


async def test_a_database_that_only_reads_is_not_ready_and_is_away_until_it_writes_again(
    database_url: str,
) -> None:
    heard: list[tuple[str, str]] = []
    database = Database(as_running(database_url), on_outage=lambda *what: heard.append(what[:2]))
    try:
        async with full_disk(database_url):
            await backend(database)
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable) as raised:
                    await database.ready()
                assert raised.value.reason == "disk_full"
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable):
                    await database._probe()
            assert heard == [("down", "disk_full")]
        await database._probe()
        await database.breaker._ask()
        assert heard == [("down", "disk_full"), ("up", "disk_full")]
        await database.ready()
    finally:
        await database.close()


async def test_one_write_that_finds_no_room_is_an_outage(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await database.once("DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$")
    assert database.breaker.outage is not None
    assert database.breaker.outage.reason == "disk_full"


async def test_a_role_that_may_make_no_temporary_table_is_ready_all_the_same(database_url: str) -> None:
    name = make_url(database_url).database
    for forbidden in (
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text, boolean) FROM PUBLIC",
    ):
        with suppress(asyncpg.UndefinedFunctionError):  # the last is of PostgreSQL 17
            await execute_within(database_url, forbidden)
        database = Database(as_running(database_url))
        try:
            await database.ready()
            await database._probe()
            assert database.breaker.outage is None
        finally:
            await database.close()


async def test_asking_whether_it_is_ready_leaves_nothing_and_writes_once_in_five_seconds(
    database: Database, database_url: str
) -> None:
    await database.ready()
    admin = await asyncpg.connect(database_url)
    try:
        assert (
            await admin.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'pairing_write_probe'") == 0
        )
        before = await admin.fetchval("SELECT pg_current_xact_id()::text::bigint")
        for _ in range(20):
            await database.ready()
        assert await admin.fetchval("SELECT pg_current_xact_id()::text::bigint") < before + 20
    finally:
        await admin.close()


async def test_a_database_that_wakes_slowly_is_waited_for_as_long_as_the_setting_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = read(database_url, {})
    [(folder, port)] = parameters.places
    proxy = FaultProxy(path=f"{folder}/.s.PGSQL.{port}")
    await proxy.start()
    # Each message of the client is late, as where a connection wakes the server.
    proxy.delay(0.2)
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.1)
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{parameters.values['dbname']}?sslmode=disable"
    impatient, patient = Database(url), Database(f"{url}&connect_timeout=30")
    try:
        with pytest.raises(Unavailable):
            await impatient.ready()
        await patient.ready()
    finally:
        proxy.heal()
        await impatient.close()
        await patient.close()
        await proxy.close()


async def test_all_waits_grow_with_the_time_for_a_connection() -> None:
    usual, longer = Database("postgresql://h/db"), Database("postgresql://h/db?connect_timeout=13")
    assert longer._transaction_timeout == usual._transaction_timeout + 10
    assert longer._probe_timeout == usual._probe_timeout + 10
