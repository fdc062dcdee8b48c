"""An audit log of a test's own, its events, and a database that can be away."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import cast

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.queue import EventQueue
from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext
from pairing_server.store.audit_events import Event

NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


class Switchable:
    """The database, or none while it is `away`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._nowhere = Database(NOWHERE)
        self.away = False

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return (self._nowhere if self.away else self._database).transaction()

    async def close(self) -> None:
        await self._nowhere.close()


def audit_log(database: Database | Switchable | None = None, size: int = 10_000) -> AuditLog:
    """Without a database it only makes events."""
    there = cast("Database", database)
    return AuditLog("node", "1", EventQueue(there, there, size))


def invalid_message(log: AuditLog, number: int) -> Event:
    """A refused message, each `number` of another source."""
    context = RequestContext(NOW, subject=f"user-{number}")
    return log.event("msg.invalid", "denied", context, rule=f"rule-{number}")
