"""What a backup saves."""

from __future__ import annotations

import asyncio
import io
import threading

import asyncpg
import pytest

from pairing_server.db import migrations
from pairing_server.db.backup.archive import DamagedError, Writer, read
from pairing_server.db.backup.connection import BackupError
from pairing_server.db.backup.save import save
from pairing_server.db.tables import metadata
from tests.conftest import execute
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


def test_a_migration_that_comes_between_leaves_no_whole_backup(database_url: str) -> None:
    class Meanwhile(Writer):
        """Another session migrates after the first member."""

        def add(self, name: str, data: bytes) -> None:
            super().add(name, data)
            if name == "about.json":
                other = threading.Thread(
                    target=execute, args=(database_url, "UPDATE alembic_version SET version_num = '0001'")
                )
                other.start()
                other.join()

    out = io.BytesIO()
    with pytest.raises(BackupError, match="migrated meanwhile"):
        asyncio.run(save(database_url, Meanwhile(out), {"release": "1", "made_at": "now"}, {}))
    with pytest.raises(DamagedError):
        read(io.BytesIO(out.getvalue()))
