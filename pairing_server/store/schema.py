"""Bringing a database to the schema of this release, and telling whether it is there.

The migrations themselves stand in the folder `migrations`, which imports nothing of ours.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

_PACKAGE = Path(__file__).resolve().parents[1]


def _config(url: str | None = None) -> Config:
    folder = _PACKAGE / "migrations"
    if not folder.is_dir():  # a checkout: the folder lies beside the package, not in it as in a wheel
        folder = _PACKAGE.parent / "migrations"
    config = Config()
    # Config interpolates "%", which a path may contain.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url` to `revision`. Not for use in a running event loop."""
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`. Not for use in a running event loop."""
    command.downgrade(_config(url), revision)


def head() -> str:
    """The newest revision this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("no migrations are installed")
    return revision


async def current(connection: AsyncConnection) -> str | None:
    """The revision the database is at; None if it has never been migrated."""
    return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def known(revision: str) -> bool:
    """Whether this release has that revision; an unknown one comes from a newer release."""
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
