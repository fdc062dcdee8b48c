"""Bringing a database to the schema of this release, and telling whether it is there.

The migrations themselves stand in the folder `migrations`, which imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pairing_server.db import endpoints, servers

# The revision before the first.
NOTHING = "base"
# An expression of SQL: the table with the revision, as migrations/env.py has chosen it; null if there is none of ours.
VERSION_TABLE = """coalesce(to_regclass('pairing_schema_version'),
    CASE WHEN to_regclass('audit_events') IS NOT NULL THEN to_regclass('alembic_version') END)"""
_PACKAGE = Path(__file__).resolve().parents[1]


def _config(url: str | None = None) -> Config:
    folder = _PACKAGE / "migrations"
    if not folder.is_dir():  # a checkout: the folder lies beside the package, not in it as in a wheel
        folder = _PACKAGE.parent / "migrations"
    config = Config()
    # Config interpolates "%", which a path may contain.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if url is not None:
        config.attributes["connect"] = endpoints.Endpoints(url, timeout=10, command_timeout=600).connect
    return config


class MigrationError(Exception):
    """The database could not be migrated; the text is for the operator."""


class NotReachable(MigrationError):
    """It cannot be asked just now."""


class State(NamedTuple):
    """What schema a database has."""

    # None if it has never been migrated.
    revision: str | None
    # The oldest revision whose release works with it; None if the migration does not say.
    works_with: str | None

    @property
    def suits(self) -> bool:
        """Whether this release works with it: it is this release's, or a newer one that says so."""
        return self.revision == head() or (
            self.newer and self.works_with is not None and known(self.works_with)
        )

    @property
    def newer(self) -> bool:
        """Whether it comes from a newer release."""
        return self.revision is not None and not known(self.revision)

    @property
    def refusal(self) -> str:
        """Why this release does not work with a newer one, and what to do."""
        return (
            f"The database is at revision {self.revision}, which is newer than this release knows ({head()}), and does not say"
            " that it works with this one. Install the newer release, or take the database back with that:"
            f" pairing-server downgrade {head()}"
        )


def migrate(url: str, revision: str = "head") -> str:
    """Upgrade the database at `url` to `revision`; the revision that it is at then. Not for use in a running event loop.

    One that a newer release has migrated, and that works with this one, is left as it is. Raises MigrationError.
    """
    with _told_to_the_operator():
        try:
            command.upgrade(_config(url), revision)
        except CommandError:
            found, _ = asyncio.run(_ask(url))
            if revision == "head" and found.suits and found.revision is not None:
                return found.revision
            if found.newer:
                raise MigrationError(found.refusal) from None
            raise
    return head() if revision == "head" else revision


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`. Not for use in a running event loop.

    Raises MigrationError.
    """
    with _told_to_the_operator():
        command.downgrade(_config(url), revision)


def go_back(url: str, revision: str, *, running: str) -> bool:
    """Take the database at `url` back to a revision before its own; False if it is there already.

    `running`: the role that runs servers. None may run meanwhile. Not for use in a running event loop. Raises
    MigrationError.
    """
    if not known(revision):
        raise MigrationError(
            f"There is no revision {revision!r}; this release knows {', '.join(_revisions())}."
        )
    with _told_to_the_operator():
        found, servers = asyncio.run(_ask(url, running))
    if found.revision == revision:
        return False
    if found.newer:
        raise MigrationError(
            f"The database is at revision {found.revision}, which this release does not know: take it back with the release"
            " that made it."
        )
    if found.revision is None or _revisions().index(revision) > _revisions().index(found.revision):
        raise MigrationError(
            f"The database is at revision {found.revision or 'none'}, before {revision}. Run: pairing-server migrate"
        )
    if servers:
        raise MigrationError(f"A server is using the database ({servers} connections). Stop it first.")
    downgrade(url, revision)
    return True


def move(connection: Connection, revision: str) -> None:
    """Upgrade the database on that connection to `revision` within its transaction; NOTHING: take the schema away."""
    config = _config()
    config.attributes["connection"] = connection
    (command.downgrade if revision == NOTHING else command.upgrade)(config, revision)


@contextmanager
def _told_to_the_operator() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise MigrationError(f"The database cannot be migrated: {error}") from None
    except AssertionError:
        # Alembic's parser of revisions.
        raise MigrationError("The database cannot be migrated: there is no such revision.") from None
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        # Connection lost, too many of them, starting up or shutting down.
        kind = NotReachable if state.startswith(("08", "53", "57P")) else MigrationError
        raise kind(f"The database cannot be migrated: {error.orig}.") from None
    except endpoints.PoolerError as error:
        raise MigrationError(str(error)) from None
    except (OSError, TimeoutError) as error:
        cause = str(error) or type(error).__name__
        raise NotReachable(f"The database is not reachable: {cause}. Check PAIRING_DATABASE_URL.") from None


def head() -> str:
    """The newest revision this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("no migrations are installed")
    return revision


# What migrations/env.py writes as the version table's comment. One that is not of the revision there says nothing.
_COMMENT = re.compile(r"revision (\S+) works with releases from revision (\S+) on")


async def state(driver: asyncpg.Connection) -> State:
    """The schema of the database that it is connected to."""
    found = await driver.fetchrow(
        f"SELECT v::text AS name, obj_description(v, 'pg_class') AS comment FROM {VERSION_TABLE} AS v"
    )
    if found["name"] is None:
        return State(None, None)
    revision = await driver.fetchval(f"SELECT version_num FROM {found['name']}")
    said = _COMMENT.fullmatch(found["comment"] or "")
    return State(revision, said[2] if said and said[1] == revision else None)


async def _ask(url: str, running: str = "") -> tuple[State, int]:
    """Its schema, and how many connections servers have to it."""
    driver = await endpoints.Endpoints(url, timeout=10).connect()
    try:
        return await state(driver), await servers.connected(driver, running)
    finally:
        await driver.close()


def known(revision: str) -> bool:
    """Whether this release has that revision; an unknown one comes from a newer release."""
    return revision in _revisions()


def _revisions() -> list[str]:
    """All that this release knows, the oldest first."""
    found = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in found][::-1]
