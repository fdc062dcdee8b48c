"""Whether a caller may still act: by the database, and for a while by what was seen last."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.database import Database
from pairing_server.errors import LoginEnded
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.hub import Hub
from pairing_server.request_context import RequestContext
from pairing_server.store import logins, users


async def require_login(conn: AsyncConnection, context: RequestContext) -> None:
    """Raises LoginEnded if the caller's login has ended, or its account is disabled or gone. Call in an act's transaction."""
    if (reason := await logins.refusal_of(conn, context)) is not None:
        raise LoginEnded(reason)


class AccountStatus:
    """When each account was last seen to be enabled, for the time that the database is away.

    Bounded: of more accounts than it holds, those seen longest ago are forgotten.
    """

    def __init__(
        self, database: Database, hub: Hub, *, kept: timedelta = timedelta(minutes=10), size: int = 20_000
    ) -> None:
        self._database = database
        self._hub = hub
        self._kept = kept
        self._size = size
        self._seen: OrderedDict[str, datetime] = OrderedDict()

    def note(self, subject: str, now: datetime) -> None:
        """The account is enabled."""
        self._seen[subject] = now
        self._seen.move_to_end(subject)
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)

    def forget(self, subject: str) -> None:
        """The account is disabled or gone."""
        self._seen.pop(subject, None)

    def seen_recently(self, subject: str, now: datetime) -> bool:
        seen = self._seen.get(subject)
        return seen is not None and now - seen <= self._kept

    async def close_disabled(self, now: datetime) -> int:
        """Close this server's connections of accounts that are disabled or gone by now. How many."""
        subjects = {connection.subject for connection in self._hub.connections.values()}
        ids = [UUID(subject) for subject in subjects if "|" not in subject]
        if not ids:
            return 0
        async with self._database.transaction() as conn:
            enabled = {str(user) for user in await users.enabled_among(conn, ids)}
        disabled = {str(user) for user in ids} - enabled
        for subject in disabled:
            self.forget(subject)
        for subject in enabled:
            self.note(subject, now)
        closing = [
            connection for connection in self._hub.connections.values() if connection.subject in disabled
        ]
        for connection in closing:
            connection.close(CloseCode.INVALID_TOKEN, "account disabled")
        return len(closing)
