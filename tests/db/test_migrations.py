"""The migrations: complete, reversible, equal to tables.py, and on their own feet."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from pairing_server.db import migrations
from pairing_server.db.database import Database
from pairing_server.db.tables import metadata
from tests.conftest import execute

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ScriptDirectory(str(ROOT / "migrations"))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]


def look(url: str, work: Callable[[Connection], T]) -> T:
    """What `work` finds in the database."""

    async def run() -> T:
        database = Database(url)
        try:
            async with database.transaction() as connection:
                return await connection.run_sync(work)
        finally:
            await database.close()

    return asyncio.run(run())


def revision(url: str) -> str | None:
    return look(url, lambda connection: MigrationContext.configure(connection).get_current_revision())


# Partitions are left out: their names are those of months. tests/audit/store/test_partitions.py is about them.
CATALOGUE = """
    SELECT 'table', oid::regclass::text, coalesce(pg_get_partkeydef(oid), ''), coalesce(array_to_string(reloptions, ' '), ''),
        '', '', ''
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
    UNION ALL
    SELECT 'column', c.table_name, c.column_name, c.data_type, c.is_nullable, coalesce(c.column_default, ''),
           coalesce(col_description(c.table_name::regclass, c.ordinal_position), '')
    FROM information_schema.columns c JOIN pg_class ON pg_class.oid = c.table_name::regclass
    WHERE c.table_schema = 'public' AND NOT relispartition
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(pg_constraint.oid), '', '', ''
    FROM pg_constraint LEFT JOIN pg_class ON pg_class.oid = conrelid
    -- NOT NULL stands with the columns; newer releases of PostgreSQL also give it a name.
    WHERE connamespace = 'public'::regnamespace AND relispartition IS NOT TRUE AND contype <> 'n'
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes
    JOIN pg_class ON pg_class.oid = tablename::regclass WHERE schemaname = 'public' AND NOT relispartition
    UNION ALL
    SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(pg_trigger.oid), '', '', ''
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE NOT tgisinternal AND NOT relispartition
    UNION ALL
    SELECT 'function', '', proname, prosrc, coalesce(array_to_string(proconfig, ' '), ''), '', ''
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'sequence', sequence_name, data_type, '', '', '', '' FROM information_schema.sequences
    WHERE sequence_schema = 'public'
"""
PARTITIONS = "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"


def catalogue(url: str) -> set[tuple[Any, ...]]:
    """Everything in the database but what counts the migrations."""
    rows = look(url, lambda connection: connection.execute(text(CATALOGUE)).all())
    return {tuple(row) for row in rows if row[1] != "alembic_version"}


def test_from_nothing_to_the_newest(empty_database: str) -> None:
    assert revision(empty_database) is None
    migrations.migrate(empty_database)
    assert revision(empty_database) == migrations.head() == REVISIONS[-1]


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
def test_the_newest_schema_is_that_of_the_tables(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        partitions = set(connection.execute(text(PARTITIONS)).scalars())

        def ours(_: object, name: str | None, kind: str, *__: object) -> bool:
            return kind != "table" or name not in partitions

        options = {"compare_type": True, "compare_server_default": True, "include_object": ours}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))

    assert look(database_url, differences) == []


def test_every_constraint_index_and_comment_is_that_of_the_tables(
    database_url: str, empty_database: str
) -> None:
    look(empty_database, metadata.create_all)
    triggers = {row for row in catalogue(database_url) if row[0] in ("trigger", "function")}
    assert {row[2] for row in triggers} == {
        "audit_events_append_only",
        "audit_events_no_rewrite",
        "audit_events_no_truncate",
        "audit_seals_no_rewrite",
        "audit_seals_no_truncate",
        "pairings_changed",
        "pairings_deleted",
        "pairings_note_change",
        "audit_partitions",
        "audit_make_partitions",
        "audit_drop_partition",
    }
    assert catalogue(database_url) - triggers == catalogue(empty_database)


def test_no_name_is_left_to_the_database(database_url: str) -> None:
    """What PostgreSQL names by itself differs from release to release, and a migration could not find it."""

    def names(connection: Connection) -> Iterator[str | None]:
        found = inspect(connection)
        for table in found.get_table_names():
            if table not in ("alembic_version", *connection.execute(text(PARTITIONS)).scalars()):
                yield found.get_pk_constraint(table)["name"]
                for listed in (
                    found.get_unique_constraints(table),
                    found.get_check_constraints(table),
                    found.get_indexes(table),
                ):
                    yield from (each["name"] for each in listed)

    for name in look(database_url, lambda connection: list(names(connection))):
        assert name is not None
        assert name.startswith(("pk_", "uq_", "ck_", "ix_", "fk_"))


def test_every_revision_can_be_taken_back_and_put_on_again(empty_database: str) -> None:
    before: list[set[tuple[Any, ...]]] = [catalogue(empty_database)]
    for step in REVISIONS:
        migrations.migrate(empty_database, step)
        before.append(catalogue(empty_database))
        migrations.downgrade(empty_database, "-1")
        assert catalogue(empty_database) == before[-2], step
        migrations.migrate(empty_database, step)
        assert catalogue(empty_database) == before[-1], step
    migrations.downgrade(empty_database, "base")
    assert catalogue(empty_database) == before[0]


def test_revisions_are_numbered_in_one_line() -> None:
    assert [f"{n:04d}" for n in range(1, len(REVISIONS) + 1)] == REVISIONS
    assert len(SCRIPTS.get_heads()) == 1
    for script in SCRIPTS.walk_revisions():
        assert Path(script.path).name.startswith(f"{script.revision}_")


def imports(path: Path) -> set[str]:
    """The first part of every module that the file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or "").partition(".")[0])
    return found


def test_migrations_import_nothing_of_ours_and_nothing_imports_them() -> None:
    files = list((ROOT / "migrations").rglob("*.py"))
    assert len(files) == 1 + len(REVISIONS)
    for path in files:
        assert not {name for name in imports(path) if name.startswith((".", "pairing_server", "tests"))}, path
    for path in (ROOT / "pairing_server").rglob("*.py"):
        assert "migrations" not in imports(path), path


# From the command line


def alembic(folder: Path, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = ("PAIRING_DATABASE_URL", "CREDENTIALS_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments],
        cwd=folder,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def url_in_environment(folder: Path, url: str) -> dict[str, str]:
    (folder / ".env").write_text("PAIRING_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none\n")
    return {"PAIRING_DATABASE_URL": url}


def url_in_dotenv(folder: Path, url: str) -> dict[str, str]:
    (folder / ".env").write_text(f'PAIRING_PORT=1\nPAIRING_DATABASE_URL="{url}"\n')
    return {}


def url_in_credential(folder: Path, url: str) -> dict[str, str]:
    (folder / ".env").write_text("PAIRING_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none\n")
    (folder / "credentials").mkdir()
    (folder / "credentials" / "database-url").write_text(f"{url}\n")
    return {"CREDENTIALS_DIRECTORY": str(folder / "credentials")}


@pytest.mark.parametrize("place", [url_in_environment, url_in_dotenv, url_in_credential])
def test_alembic_finds_the_database_where_the_settings_have_it(
    empty_database: str, tmp_path: Path, place: Callable[[Path, str], dict[str, str]]
) -> None:
    done = alembic(tmp_path, place(tmp_path, empty_database), "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert revision(empty_database) == migrations.head()


def test_alembic_without_a_database_says_what_to_set(tmp_path: Path) -> None:
    done = alembic(tmp_path, {}, "upgrade", "head")
    assert done.returncode == 1
    assert done.stderr == (
        "PAIRING_DATABASE_URL is not set, so there is nothing to migrate. Set it to postgresql://…;"
        " for the embedded database run: pairing-server migrate\n"
    )


def test_the_statements_can_be_printed_to_be_run_by_hand(
    empty_database: str, database_url: str, tmp_path: Path
) -> None:
    done = alembic(tmp_path, {}, "upgrade", "head", "--sql")
    assert done.returncode == 0, done.stderr
    execute(empty_database, done.stdout)
    assert catalogue(empty_database) == catalogue(database_url)


def test_of_two_that_migrate_at_once_one_waits_and_finds_nothing_to_do(empty_database: str) -> None:
    async def both() -> None:
        watcher = await asyncpg.connect(empty_database)
        try:
            await watcher.execute("SELECT pg_advisory_lock(7421000)")
            environ = {"PAIRING_DATABASE_URL": empty_database}
            runs = [
                asyncio.create_task(asyncio.to_thread(alembic, ROOT, environ, "upgrade", "head"))
                for _ in range(2)
            ]
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while await watcher.fetchval(waiting) < 2:
                assert not any(run.done() for run in runs)
            await watcher.execute("SELECT pg_advisory_unlock(7421000)")
            for done in await asyncio.gather(*runs):
                assert done.returncode == 0, done.stderr
        finally:
            await watcher.close()

    asyncio.run(both())
    assert revision(empty_database) == migrations.head()
