"""Who asks for something, from where, and when: one value for the decision and for the audit log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class RequestContext:
    """`subject` None: not logged in. `login_id`, `token_id` and `logged_in_at` are from the token. `address` is the
    client's after the proxy rules, `address_key` what limits count it by. `kind` is the actor's in the audit log:
    anonymous, user, device, admin or system."""

    now: datetime
    subject: str | None = None
    login_id: str | None = None
    address: str | None = None
    address_key: str = ""
    request_id: UUID | None = None
    connection_id: UUID | None = None
    kind: str = "anonymous"
    token_id: str | None = None
    logged_in_at: datetime | None = None

    def at(self, now: datetime) -> RequestContext:
        """The same at another time."""
        return replace(self, now=now)


def system(now: datetime) -> RequestContext:
    """The server itself, in its own jobs."""
    return RequestContext(now, kind="system")
