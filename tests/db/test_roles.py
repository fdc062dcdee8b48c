"""Who runs the server may add to the audit log what is his own, and nothing else; not even a superuser changes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from pairing_server.db import migrations, roles
from tests.cli.commands import Operator
from tests.conftest import execute
from tests.devices import Site

ROW = """(occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind{names})
    VALUES (now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user'{values})"""
FORBIDDEN = {
    "back-dating": f"INSERT INTO audit_events {ROW.format(names=', recorded_at', values=', now()')}",
    "choosing a number": f"INSERT INTO audit_events {ROW.format(names=', seq', values=', 1')}",
    "choosing a transaction": f"INSERT INTO audit_events {ROW.format(names=', xid', values=', 3::text::xid8')}",
    "choosing an epoch": f"INSERT INTO audit_events {ROW.format(names=', epoch', values=', 0')}",
    "writing past the parent": f"INSERT INTO audit_events_first {ROW.format(names='', values='')}",
    "changing": "UPDATE audit_events SET outcome = 'failure'",
    "deleting": "DELETE FROM audit_events",
    "truncating": "TRUNCATE audit_events",
    "truncating a partition": "TRUNCATE audit_events_first",
    "dropping": "DROP TABLE audit_events",
    "dropping a partition": "DROP TABLE audit_events_first",
    "detaching a partition": "ALTER TABLE audit_events DETACH PARTITION audit_events_first",
    "switching the trigger off": "ALTER TABLE audit_events DISABLE TRIGGER ALL",
    "switching all triggers off": "SET session_replication_role = replica",
    "changing a seal": "UPDATE audit_seals SET n_rows = 0",
    "deleting a seal": "DELETE FROM audit_seals",
    "turning the numbers back": "SELECT setval('audit_events_number', 1)",
    "replacing the trigger's function": "CREATE OR REPLACE FUNCTION audit_events_append_only() RETURNS trigger "
    "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "making a table": "CREATE TABLE mine (a int)",
    "migrating": "UPDATE alembic_version SET version_num = '0001'",
    "dropping a young partition": "SELECT audit_drop_partition('audit_events_first', 400, 'n', '1')",
}


@pytest.fixture
def running_url(database_url: str) -> str:
    execute(database_url, f"INSERT INTO audit_events {ROW.format(names='', values='')}")
    return roles.make_running(database_url)


async def attempt(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("act", FORBIDDEN)
async def test_the_role_that_runs_the_server_may_not_rewrite_the_log(running_url: str, act: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await attempt(running_url, FORBIDDEN[act])


@pytest.mark.parametrize(
    "act", ["changing", "deleting", "truncating", "truncating a partition", "changing a seal"]
)
async def test_neither_may_a_superuser(database_url: str, running_url: str, act: str) -> None:
    await attempt(
        database_url,
        """INSERT INTO audit_seals (seal_no, epoch, from_xid, to_xid, n_rows, parts, digest, previous, sealed_at, node,
            public_key, signature) VALUES (1, 1, '0', '1', 0, '[]', '', '', now(), 'n', '', '')""",
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await attempt(database_url, FORBIDDEN[act])


async def test_what_a_caller_puts_in_the_way_is_not_found_by_what_runs_as_the_owner(running_url: str) -> None:
    connection = await asyncpg.connect(running_url)
    try:
        await connection.execute("SELECT audit_make_partitions(2)")
        await connection.execute("CREATE TEMP TABLE audit_seals (epoch int, to_xid xid8, seal_no bigint)")
        await connection.execute("INSERT INTO audit_seals VALUES (1, '99999999', 1)")
        await connection.execute("SET search_path = pg_temp, public")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="younger"):
            await connection.execute(FORBIDDEN["dropping a young partition"])
        assert await connection.fetchval("SELECT audit_make_partitions(3)") == 1
    finally:
        await connection.close()


async def test_a_whole_pairing_works_with_these_rights(site: Site) -> None:
    async with site.node.database.transaction() as conn:
        assert (await conn.exec_driver_sql("SELECT current_user")).scalar_one() == roles.RUNNING
    desktop, mobile = await site.pair()
    mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"a": 1}})
    assert (await desktop.socket.expect("channel_message"))["payload"] == {"a": 1}
    assert await site.events("pairing.redeem")


def test_migrating_as_the_owner_gives_the_other_role_its_rights(empty_database: str, tmp_path: Path) -> None:
    execute(
        empty_database,
        "DROP ROLE IF EXISTS app_of_test",
        "CREATE ROLE app_of_test LOGIN",
    )
    running = empty_database.replace("//postgres@", "//app_of_test@")
    try:
        operator = Operator(running, tmp_path, MIGRATE_DATABASE_URL=empty_database)
        assert migrations.head() in operator.says("migrate")
        operator.says("user", "add", "alice", stdin="a long enough password\n")
        assert "account.created" in operator.says("audit", "list")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            asyncio.run(attempt(running, FORBIDDEN["deleting"]))
    finally:
        execute(empty_database, "DROP OWNED BY app_of_test", "DROP ROLE app_of_test")
