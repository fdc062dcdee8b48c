"""The audit log's partitions: one a month, made ahead, each append-only by itself, dropped only when they may be."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from pairing_server.db import migrations
from pairing_server.db.database import Database
from pairing_server.server.startup_checks import check_schema
from tests.conftest import execute

ROW = """
    INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind, attrs)
    SELECT now(), gen_random_uuid(), 'auth.login', 6, 'success', 'node', '1', 'user', jsonb_build_object('n', n)
    FROM generate_series(1, {count}) AS n
"""
SEAL = """
    INSERT INTO audit_seals (seal_no, epoch, from_xid, to_xid, n_rows, parts, digest, previous, sealed_at, node, public_key,
        signature)
    VALUES (1, 1, '0', pg_current_xact_id(), 0, '[]', '', '', now(), 'node', '', '')
"""


async def fetch(url: str, statement: str, *values: object) -> list[Any]:
    """The rows of one statement, as tuples."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


async def test_there_are_partitions_for_this_month_and_two_more(empty_database: str) -> None:
    # Those of the other tests may be of the month before, when the first of them began.
    await asyncio.to_thread(migrations.migrate, empty_database)
    [(months,)] = await fetch(
        empty_database,
        """SELECT array_agg(ends = date_trunc('month', now(), 'UTC') + make_interval(months => 1 + place) ORDER BY ends)
        FROM (SELECT ends, row_number() OVER (ORDER BY ends)::int - 1 AS place FROM audit_partitions()) AS each""",
    )
    assert months == [True, True, True]
    assert await fetch(empty_database, "SELECT audit_make_partitions()") == [(0,)]
    assert await fetch(empty_database, "SELECT audit_make_partitions(4)") == [(2,)]
    assert len(await fetch(empty_database, "SELECT * FROM audit_partitions()")) == 5


async def test_several_servers_may_make_the_same_partitions_at_once(database_url: str) -> None:
    await fetch(database_url, "SELECT audit_make_partitions()")
    made = await asyncio.gather(*(fetch(database_url, "SELECT audit_make_partitions(12)") for _ in range(4)))
    assert sum(count for [(count,)] in made) == 10
    still_to_come = "SELECT count(*) FROM audit_partitions() WHERE ends > now()"
    assert await fetch(database_url, still_to_come) == [(13,)]


@pytest.mark.parametrize("ahead", [-1, 13])
async def test_partitions_are_not_made_without_end(database_url: str, ahead: int) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await fetch(database_url, "SELECT audit_make_partitions($1)", ahead)


async def test_each_partition_refuses_changes_by_every_role(database_url: str) -> None:
    await fetch(database_url, ROW.format(count=3))
    await fetch(database_url, "SELECT audit_make_partitions(3)")
    partitions = [name for (name,) in await fetch(database_url, "SELECT name FROM audit_partitions()")]
    assert len(partitions) >= 4
    # A row of each month, so that a trigger for each row has one to refuse.
    await fetch(
        database_url,
        ROW.format(count=1)
        .replace("(occurred_at", "(recorded_at, occurred_at")
        .replace("SELECT now()", "SELECT ends - interval '1 day', now()")
        + " CROSS JOIN audit_partitions()",
    )
    for table in (*partitions, "audit_events"):
        for act in ("UPDATE {} SET outcome = 'error'", "DELETE FROM {}", "TRUNCATE {}"):
            with pytest.raises(
                asyncpg.InsufficientPrivilegeError, match=r"append-only: \w+ of audit_events\w* refused"
            ):
                await fetch(database_url, act.format(table))
    unchanged = "SELECT count(*) FROM audit_events WHERE outcome = 'success'"
    assert await fetch(database_url, unchanged) == [(3 + len(partitions),)]


async def test_seals_cannot_be_changed_either(database_url: str) -> None:
    await fetch(database_url, SEAL)
    for act in ("UPDATE audit_seals SET n_rows = 1", "DELETE FROM audit_seals", "TRUNCATE audit_seals"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await fetch(database_url, act)


def test_rows_of_before_migrate_along_and_back_again(empty_database: str) -> None:
    wanted = "SELECT seq, xid::text, recorded_at, event_id, attrs::text FROM audit_events ORDER BY seq"

    def rows(url: str) -> list[Any]:
        return asyncio.run(fetch(url, wanted))

    migrations.migrate(empty_database, "0002")
    execute(empty_database, ROW.format(count=50))
    before = rows(empty_database)
    migrations.migrate(empty_database, "0003")
    assert rows(empty_database) == before
    execute(empty_database, ROW.format(count=50))
    after = rows(empty_database)
    assert after[:50] == before
    assert [row[0] for row in after] == list(range(1, 101))
    migrations.downgrade(empty_database, "0002")
    assert rows(empty_database) == after
    execute(empty_database, ROW.format(count=1))
    assert [row[0] for row in rows(empty_database)][-1] > 100


# Dropping


async def old_partition(url: str, *, months: int) -> str:
    """A partition that ended so many months ago, with one row; the name of it."""
    connection = await asyncpg.connect(url)
    try:
        name = "audit_events_old"
        await connection.execute("ALTER TABLE audit_events DETACH PARTITION audit_events_first")
        await connection.execute(
            f"""DO $$ BEGIN
            CREATE TABLE {name} (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
            EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION {name} FOR VALUES FROM (MINVALUE) TO (%L)',
                date_trunc('month', now(), 'UTC') - interval '{months} months');
            EXECUTE format('CREATE TABLE audit_events_recent PARTITION OF audit_events FOR VALUES FROM (%L) TO (%L)',
                date_trunc('month', now(), 'UTC') - interval '{months} months',
                (SELECT min(begins) FROM audit_partitions())); END $$"""
        )
        await connection.execute(
            ROW.format(count=1)
            .replace("(occurred_at", "(recorded_at, occurred_at")
            .replace("SELECT now()", "SELECT now() - interval '4 years', now()")
        )
        return name
    finally:
        await connection.close()


DROP = "SELECT audit_drop_partition($1, $2, 'node-1', '1.2.3')"


async def test_an_old_sealed_partition_is_dropped_and_the_log_says_so(database_url: str) -> None:
    name = await old_partition(database_url, months=15)
    await fetch(database_url, SEAL)
    assert await fetch(database_url, DROP, name, 400) == [(1,)]
    [(event, outcome, node, attrs)] = await fetch(
        database_url, "SELECT event, outcome, node, attrs::text FROM audit_events"
    )
    assert (event, outcome, node) == ("audit.retention", "success", "node-1")
    assert f'"partition": "{name}"' in attrs
    assert '"rows": 1' in attrs
    assert '"last_seal": 1' in attrs


@pytest.mark.parametrize(
    ("months", "days", "sealed", "which", "why"),
    [
        (15, 29, True, "audit_events_old", "for 30 days at least"),
        (12, 400, True, "audit_events_old", "younger than 400 days"),
        (15, 400, False, "audit_events_old", "not wholly sealed"),
        (15, 400, True, "audit_events_recent", "not the oldest"),
        (15, 400, True, "audit_seals", "not the oldest"),
    ],
)
async def test_a_partition_that_is_young_unsealed_or_not_the_oldest_is_not_dropped(
    database_url: str, months: int, days: int, sealed: bool, which: str, why: str
) -> None:
    await old_partition(database_url, months=months)
    if sealed:
        await fetch(database_url, SEAL)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=why):
        await fetch(database_url, DROP, which, days)
    assert await fetch(database_url, "SELECT count(*) FROM audit_events") == [(1,)]


async def test_a_server_that_was_off_for_months_makes_its_partitions_first(
    database_url: str,
) -> None:
    await old_partition(database_url, months=15)
    for name in ("audit_events_recent", *await later(database_url)):
        await fetch(database_url, f"DROP TABLE {name}")
    database = Database(database_url)
    try:
        await check_schema(database)
    finally:
        await database.close()
    assert await later(database_url)
    await fetch(database_url, ROW.format(count=1))


async def later(url: str) -> list[str]:
    months = "SELECT name FROM audit_partitions() WHERE begins > now()"
    return [name for (name,) in await fetch(url, months)]
