"""Checks whether the server can start on its database. If not, the error says why and what to do."""

from __future__ import annotations

import logging

from pairing_server.audit.seals.sealer import restored as was_restored
from pairing_server.audit.store import partitions
from pairing_server.db import migrations
from pairing_server.db.database import Database
from pairing_server.db.endpoints import PoolerError
from pairing_server.errors import Unavailable

log = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start. The text says why, and what to do."""


class DatabaseUnreachable(StartError):
    """The database does not answer. `reason`: why, as for DatabaseUnavailable."""

    def __init__(self, text: str, reason: str | None) -> None:
        super().__init__(text)
        self.reason = reason


async def check_schema(database: Database) -> str:
    """The revision of the database, if this release works with its schema. Raises StartError, which says what to run."""
    try:
        async with database.direct() as direct:
            there = await migrations.state(direct.driver)
    except Unavailable as error:
        cause = error.__cause__
        reason = str(getattr(cause, "orig", None) or cause or error) or type(cause).__name__
        raise DatabaseUnreachable(
            f"The database cannot be used: {reason}. Check PAIRING_DATABASE_URL.",
            getattr(error, "reason", None),
        ) from None
    except PoolerError as error:
        raise StartError(str(error)) from None
    if there.revision is not None and there.suits:
        if there.newer:
            log.warning(
                "database of a newer release, this one works with it", extra={"revision": there.revision}
            )
        # An event needs its month's partition; those of the months in which no server ran are missing.
        async with database.transaction() as conn:
            await partitions.make(conn)
            restored = await was_restored(conn)
        if restored:
            raise StartError(
                "The database was restored from a dump: its transaction ids are lower than those that the audit log"
                " was sealed by. Run: pairing-server audit rebase"
            )
        return there.revision
    if there.newer:
        raise StartError(there.refusal)
    raise StartError(
        f"The database is at revision {there.revision or 'none'}, this release needs {migrations.head()}."
        " Run: pairing-server migrate"
    )
