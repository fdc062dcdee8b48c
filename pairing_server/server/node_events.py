"""Records in the audit log what happens in the relay, to the database and to the keys of foreign issuers, which call this."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pairing_server.audit.recorder import AuditLog
from pairing_server.relay.context import RelayEvent
from pairing_server.request_context import RequestContext, system

log = logging.getLogger(__name__)


class NodeEvents:
    def __init__(self, audit: AuditLog, now: Callable[[], datetime]) -> None:
        self._audit = audit
        self._now = now

    def of_relay(self, event: RelayEvent) -> None:
        """Of a connection or a channel."""
        now, peer = self._now(), event.peer
        context = system(now)
        if peer is not None:
            context = RequestContext(
                now,
                peer.identity.subject,
                peer.identity.login_id,
                peer.address,
                peer.address_key,
                connection_id=UUID(peer.connection_id),
                kind="device",
            )
        attributes: dict[str, Any] = dict(event.attributes)
        reason = attributes.pop("reason", None)
        self._enqueue(
            event.name,
            event.outcome,
            context,
            pairing_id=event.pairing_id,
            reason=str(reason) if reason else None,
            **attributes,
        )

    def of_database(self, what: str, reason: str, seconds: float) -> None:
        """The database is `down`, `up` again, or there is a `failover`. `seconds`: how long it was away."""
        if what == "down":
            log.warning("database down", extra={"reason": reason})
        elif what == "up":
            log.warning("database up", extra={"seconds": round(seconds, 1)})
        else:
            log.warning("database failover", extra={"seconds": round(seconds, 1)})
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
        self._audit.enqueue_event(event, outcome, context.at(self._now()), **attrs)
