"""What has been revoked before its time: logins, single tokens, everything of a user. In memory; no I/O, no clock.

Verifying a token asks this and nothing else, so that a thousand clients that come back at once need no query.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pairing_server.security.issuers import issuer_of
from pairing_server.store.logins import LOGIN, TOKEN, USER, Revocation


class RevocationList:
    """The revocations that still matter."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Revocation] = {}
        # Up to when those of the database are known.
        self.read_until: datetime | None = None

    def add(self, revocations: Iterable[Revocation]) -> bool:
        """Whether any of them is new."""
        new = False
        for one in revocations:
            key = (one.kind, one.issuer, one.name)
            before = self._known.get(key)
            if before is None or before.revoked_at < one.revoked_at:
                self._known[key] = one
                new = True
        return new

    def forget(self, now: datetime) -> None:
        """Forget those that do not matter any more."""
        over = [key for key, one in self._known.items() if one.expires_at <= now]
        for key in over:
            del self._known[key]

    def covers(self, subject: str, login_id: str, token_id: str, logged_in_at: datetime) -> bool:
        """Whether a token of this user, from this login, is revoked."""
        if not self._known:
            return False
        issuer = issuer_of(subject)
        if (LOGIN, issuer, login_id) in self._known or (TOKEN, issuer, token_id) in self._known:
            return True
        user = self._known.get((USER, issuer, subject))
        return user is not None and logged_in_at <= user.revoked_at
