"""A database that is shared with another program, which has an alembic of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from pairing_server.db import migrations
from tests.cli.commands import Operator
from tests.conftest import execute
from tests.db.test_migrations import REVISIONS

OWN, ALEMBICS = "pairing_schema_version", "alembic_version"
NEIGHBOUR = (
    "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
    # Any program's first revision may be called so.
    "INSERT INTO alembic_version VALUES ('0001')",
    "COMMENT ON TABLE alembic_version IS 'revision 0001 works with releases from revision 0001 on'",
)


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    async def run() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(run())


def revisions(url: str) -> dict[str, list[object]]:
    """The tables that have one, and what they say."""
    found = ask(url, f"SELECT relname FROM pg_class WHERE relname IN ('{OWN}', '{ALEMBICS}')")
    return {str(name): [row[0] for row in ask(url, f"SELECT version_num FROM {name}")] for (name,) in found}


def test_beside_another_programs_revision_ours_has_a_table_of_its_own(
    empty_database: str, tmp_path: Path
) -> None:
    execute(empty_database, *NEIGHBOUR, "DROP ROLE IF EXISTS app_beside", "CREATE ROLE app_beside LOGIN")
    running = empty_database.replace("//postgres@", "//app_beside@")
    try:
        operator = Operator(running, tmp_path, MIGRATE_DATABASE_URL=empty_database)
        operator.says("migrate")
        assert revisions(empty_database) == {OWN: [migrations.head()], ALEMBICS: ["0001"]}
        operator.says("migrate")
        operator.says("user", "add", "alice", stdin="a long enough password\n")
        operator.says("backup", "saved.tar")
        operator.says("restore", "--replace", "saved.tar")
        assert operator.says("user", "list").startswith("alice\t")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            ask(running, f"SELECT * FROM {ALEMBICS}")
        migrations.downgrade(empty_database, REVISIONS[-2])
        assert revisions(empty_database) == {OWN: [REVISIONS[-2]], ALEMBICS: ["0001"]}
        assert "Run: pairing-server migrate" in operator.refuses("user", "list")
    finally:
        execute(empty_database, "DROP OWNED BY app_beside", "DROP ROLE app_beside")


def test_an_installation_keeps_the_table_that_it_has(empty_database: str, tmp_path: Path) -> None:
    migrations.migrate(empty_database, REVISIONS[0])
    assert revisions(empty_database) == {ALEMBICS: [REVISIONS[0]]}
    migrations.migrate(empty_database)
    assert revisions(empty_database) == {ALEMBICS: [migrations.head()]}


def test_an_installation_can_move_to_a_table_of_its_own(empty_database: str, tmp_path: Path) -> None:
    """As the documents say it, before a program with an alembic of its own moves in."""
    migrations.migrate(empty_database, REVISIONS[-2])
    execute(empty_database, f"ALTER TABLE {ALEMBICS} RENAME TO {OWN}", *NEIGHBOUR)
    operator = Operator(empty_database, tmp_path)
    operator.says("migrate")
    assert revisions(empty_database) == {OWN: [migrations.head()], ALEMBICS: ["0001"]}
    operator.says("user", "add", "alice", stdin="a long enough password\n")


def test_what_was_taken_away_wholly_can_be_put_on_again(empty_database: str) -> None:
    migrations.migrate(empty_database, REVISIONS[0])
    migrations.downgrade(empty_database, "base")
    assert revisions(empty_database) == {ALEMBICS: []}
    migrations.migrate(empty_database)
    assert revisions(empty_database) == {ALEMBICS: [migrations.head()]}
