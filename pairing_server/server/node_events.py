"""What happens to a running server by itself, as events of the audit log: the relay, the database and the keys of
foreign issuers tell of it by calling these."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pairing_server.audit.recorder import AuditLog
from pairing_server.clock import utcnow
from pairing_server.relay.connection import Connection
from pairing_server.request_context import RequestContext, system

log = logging.getLogger(__name__)


class NodeEvents:
    def __init__(self, audit: AuditLog, now: Callable[[], datetime]) -> None:
        self._audit = audit
        self._now = now

    def of_relay(
        self, event: str, outcome: str, connection: Connection | None, attrs: Mapping[str, object]
    ) -> None:
        """Of a connection or a channel; `session`: whose doing it was, None: the server's."""
        context = system(self._now())
        if connection is not None:
            context = RequestContext(
                utcnow(),
                subject=connection.subject,
                login_id=connection.identity.login_id,
                address=connection.address,
                address_key=connection.address_key,
                connection_id=UUID(connection.connection_id),
                kind="device",
            )
        rest: dict[str, Any] = dict(attrs)
        pairing = rest.pop(
            "pairing", connection.channel.pairing_id if connection and connection.channel else None
        )
        reason = rest.pop("reason", None)
        self._enqueue(
            event,
            outcome,
            context,
            pairing_id=pairing if isinstance(pairing, UUID) else None,
            reason=str(reason) if reason else None,
            **rest,
        )

    def of_database(self, what: str, reason: str, seconds: float) -> None:
        """The database is `down`, `up` again, or there is a `failover`. `seconds`: how long it was away."""
        if what == "down":
            log.warning("the database is away (%s); what does not need it goes on", reason)
        else:
            log.warning("database: %s, after %.1f s", what, seconds)
        outcome = "error" if what == "down" else "success"
        self._enqueue(
            f"db.{what}", outcome, system(self._now()), reason=reason or None, duration_s=round(seconds, 1)
        )

    def of_issuer_keys(
        self, issuer: str, added: Sequence[str], removed: Sequence[str], error: str | None
    ) -> None:
        """The keys of a foreign issuer were fetched, or could not be."""
        outcome = "error" if error else "success"
        self._enqueue(
            "auth.jwks_refresh",
            outcome,
            system(self._now()),
            issuer=issuer,
            added=added,
            removed=removed,
            error=error,
        )

    def _enqueue(self, event: str, outcome: str, context: RequestContext, /, **attrs: Any) -> None:
        self._audit.enqueue(self._audit.event(event, outcome, context.at(self._now()), **attrs))
