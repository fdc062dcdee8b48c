"""Classifies errors of PostgreSQL: a fault of the server, "not now", or an unavailable database and why."""

from __future__ import annotations

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pairing_server.db.circuit_breaker import DatabaseUnavailable
from pairing_server.errors import Unavailable

# SQLSTATE classes and codes that mean "not now", and what they say of the database: connection trouble, a login that
# it refuses and a database it has not got, no connections or memory left, a full disk, shutting down, read-only after a failover.
# Locks, conflicts and a cancelled statement say nothing of it.
_PASSING: dict[str, str | None] = {
    "08": "unreachable",
    "25006": "read_only",
    "28": "refused",
    "3D000": "refused",
    "40001": None,
    "40P01": None,
    "53": "full",
    "53100": "disk_full",
    "55000": None,
    "55P03": None,
    "57014": "slow",
    "57": "unreachable",
}

# What the database, the driver and SQLAlchemy raise about a statement, a value or a connection.
DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    DBAPIError,
    PoolTimeout,
)

# SQLSTATE codes that say what is wrong with an installation, and what to do about it.
_REMEDIES = {
    "42501": "The role of PAIRING_DATABASE_URL lacks a right. To grant it: `pairing-server migrate` with"
    " PAIRING_MIGRATE_DATABASE_URL, the URL of the role that owns the tables.",
    "42P01": "A table is missing: `pairing-server migrate`, or another search_path of the role.",
}

# How the server says that it is hanging up.
_HANGING_UP = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)


def breaks_off(error: BaseException) -> bool:
    """Whether the connection is not to be used again after this: it is lost, or was cut off in the middle of
    something, and its state is not known."""
    return not isinstance(error, Exception) or isinstance(error, (*_HANGING_UP, OSError))


def unavailable_error(error: BaseException, *, lost: bool) -> DatabaseUnavailable | None:
    """The error as DatabaseUnavailable if it will pass; None for a fault, and for an error that is not the database's."""
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable("The database does not answer in time. Try again in a moment.", "slow")
    if isinstance(error, OSError) or (lost and isinstance(error, asyncpg.InterfaceError)):
        return DatabaseUnavailable("The database cannot be reached. Try again in a moment.", "unreachable")
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(
            "All connections to the database are in use. Try again in a moment.", "busy"
        )
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return _by_state("25006")
    if isinstance(error, asyncpg.PostgresError):
        return _by_state(error.sqlstate or "08")
    if isinstance(error, DBAPIError):
        if isinstance(getattr(error.orig, "__cause__", None), asyncpg.TargetServerAttributeNotMatched):
            return _by_state("25006")
        if error.connection_invalidated:
            return _by_state("08")
        # asyncpg's own errors (a lost connection) carry no SQLSTATE.
        return _by_state(getattr(error.orig, "sqlstate", None) or "08")
    return None


def for_operator(error: BaseException) -> str:
    """What one of DATABASE_ERRORS says, and what to do. Without the statement and its values, which may be secret."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    remedy = _REMEDIES.get(getattr(error, "sqlstate", None) or "", "")
    text = str(error).strip().removesuffix(".")
    return f"The database has refused this: {text}.\n{remedy}".rstrip()


def _by_state(state: str) -> DatabaseUnavailable | None:
    found = next((known for known in (state, state[:2]) if known in _PASSING), None)
    if found is None:
        return None
    reason = _PASSING[found]
    if reason == "disk_full":
        return DatabaseUnavailable("The database's disk is full. Try again when there is room.", reason)
    description = "read-only" if reason == "read_only" else "not available"
    return DatabaseUnavailable(f"The database is {description}. Try again in a moment.", reason)


def readiness_reason(error: Unavailable) -> str:
    """The reason as /readyz and `doctor` give it, such as "database_read_only"."""
    return f"database_{getattr(error, 'reason', None) or 'busy'}"
