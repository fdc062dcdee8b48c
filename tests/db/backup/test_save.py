"""What a backup saves."""

from __future__ import annotations

import asyncio

import asyncpg

from pairing_server.db import migrations
from pairing_server.db.tables import metadata
from tests.db.test_migrations import REVISIONS

_TABLES = """SELECT c.relname FROM pg_class AS c WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relnamespace = 'public'::regnamespace"""


def test_the_tables_of_every_revision_are_known(empty_database: str) -> None:
    """A table that a later migration removes would be left out of a backup that is made before it."""

    async def tables() -> set[str]:
        connection = await asyncpg.connect(empty_database)
        try:
            return {row[0] for row in await connection.fetch(_TABLES)}
        finally:
            await connection.close()

    for revision in REVISIONS:
        migrations.migrate(empty_database, revision)
        assert asyncio.run(tables()) <= {*metadata.tables, "alembic_version"}, revision
