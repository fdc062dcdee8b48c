"""Whether an account is enabled: by the database, and for a while by what was seen last."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.database import Database
from pairing_server.errors import InvalidToken
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.hub import Hub
from pairing_server.store import users


def account_of(subject: str | None) -> UUID | None:
    """The id of the built-in user; None for guests and for the subjects of other issuers.

    Raises InvalidToken if there can be no such user.
    """
    if subject is None or "|" in subject:
        return None
    try:
        return UUID(subject)
    except ValueError:
        raise not_enabled() from None


def not_enabled() -> InvalidToken:
    return InvalidToken("The account of this token is disabled or gone.", reason="disabled")


async def require_enabled(conn: AsyncConnection, subject: str | None) -> None:
    """Raises InvalidToken if a built-in user's account is gone or disabled."""
    account = account_of(subject)
    if account is None:
        return
    user = await users.by_id(conn, account)
    if user is None or user.disabled_at is not None:
        raise not_enabled()


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
        """Close this server's connections of accounts that are disabled by now. How many."""
        subjects = {connection.subject for connection in self._hub.connections.values()}
        ids = [UUID(subject) for subject in subjects if "|" not in subject]
        if not ids:
            return 0
        async with self._database.transaction() as conn:
            disabled = {str(user) for user in await users.disabled_among(conn, ids)}
        for subject in map(str, ids):
            if subject in disabled:
                self.forget(subject)
            else:
                self.note(subject, now)
        closing = [
            connection for connection in self._hub.connections.values() if connection.subject in disabled
        ]
        for connection in closing:
            connection.close(CloseCode.INVALID_TOKEN, "account disabled")
        return len(closing)
