"""Bringing a database to the schema of this release, and telling whether it is there.

The migrations themselves stand in the folder `migrations`, which imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError
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


class MigrationError(Exception):
    """The database could not be migrated; the text is for the operator."""


class NotReachable(MigrationError):
    """It cannot be asked just now."""


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url` to `revision`. Not for use in a running event loop.

    Raises MigrationError.
    """
    with _told_to_the_operator():
        command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`. Not for use in a running event loop.

    Raises MigrationError.
    """
    with _told_to_the_operator():
        command.downgrade(_config(url), revision)


@contextmanager
def _told_to_the_operator() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise MigrationError(f"The database cannot be migrated: {error}") from None
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        # Connection lost, too many of them, starting up or shutting down.
        kind = NotReachable if state.startswith(("08", "53", "57P")) else MigrationError
        raise kind(f"The database cannot be migrated: {error.orig}.") from None
    except (OSError, TimeoutError) as error:
        told = str(error) or type(error).__name__
        raise NotReachable(f"The database is not reachable: {told}. Check PAIRING_DATABASE_URL.") from None


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
