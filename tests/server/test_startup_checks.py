"""The checks of the database before the server starts."""

from __future__ import annotations

import asyncio

import pytest

from pairing_server.db.database import Database
from pairing_server.server.startup_checks import DatabaseUnreachable, StartError, check_schema
from tests.cli.commands import NO_DATABASE
from tests.conftest import execute


def check(url: str) -> None:
    async def once() -> None:
        database = Database(url)
        try:
            await check_schema(database)
        finally:
            await database.close()

    asyncio.run(once())


def test_a_schema_that_is_behind_is_refused_and_the_command_is_named(empty_database: str) -> None:
    with pytest.raises(StartError, match=r"revision none, .* Run: pairing-server migrate"):
        check(empty_database)


def test_a_schema_that_is_newer_is_refused(database_url: str) -> None:
    check(database_url)
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartError, match="revision 9999, which is newer than this release knows"):
        check(database_url)


def test_a_database_that_is_away_is_another_error_than_one_with_a_wrong_schema() -> None:
    with pytest.raises(DatabaseUnreachable, match=r"cannot be used: .* Check PAIRING_DATABASE_URL"):
        check(NO_DATABASE)
