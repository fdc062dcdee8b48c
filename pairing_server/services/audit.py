"""The audit log: what is recorded, in the act's own transaction or by a bounded queue. Who may read it: services/audit_reading.py."""

from __future__ import annotations

import asyncio
import logging
import unicodedata
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.errors import Unavailable
from pairing_server.store import audit as store
from pairing_server.store import partitions, users
from pairing_server.store.audit import Event

if TYPE_CHECKING:
    from pairing_server.services.deps import Caller, Deps

log = logging.getLogger(__name__)

# Each event, with its severity (syslog's scale) when it succeeded and when it did not.
EVENTS: Mapping[str, tuple[int, int]] = {
    "auth.login": (6, 4),
    "auth.lockout": (4, 4),
    "auth.logout": (6, 6),
    "auth.token_issued": (6, 4),
    "auth.token_revoked": (5, 5),
    "auth.token_refreshed": (6, 4),
    "auth.token_rejected": (4, 4),
    "auth.token_reuse": (3, 3),
    "auth.jwks_refresh": (6, 4),
    "account.created": (5, 5),
    "account.disabled": (5, 5),
    "account.enabled": (5, 5),
    "account.password_changed": (5, 5),
    "account.role_changed": (4, 4),
    "key.rotated": (5, 4),
    "access.denied": (4, 4),
    "admin.action": (5, 4),
    "pairing.code_created": (6, 4),
    "pairing.redeem": (6, 4),
    "pairing.confirmed": (6, 6),
    "pairing.rejected": (5, 5),
    "pairing.bruteforce": (2, 2),
    "pairing.code_expired": (6, 6),
    "pairing.closed": (6, 6),
    "session.bound": (6, 6),
    "session.hijack_attempt": (2, 2),
    "ws.connected": (6, 6),
    "ws.rejected": (4, 4),
    "ws.disconnected": (6, 6),
    "channel.joined": (6, 6),
    "channel.left": (6, 6),
    "channel.denied": (4, 4),
    "channel.replaced": (5, 5),
    "msg.invalid": (4, 4),
    "msg.too_large": (4, 4),
    "limit.rate": (4, 4),
    "limit.slow_consumer": (4, 4),
    "limit.protocol_abuse": (3, 3),
    "audit.query": (6, 4),
    "audit.export": (6, 4),
    "audit.seal": (6, 4),
    "audit.verify": (6, 1),
    "audit.gap": (3, 3),
    "db.down": (5, 3),
    "db.up": (5, 3),
    "db.failover": (5, 3),
    "config.changed": (5, 5),
    "system.started": (5, 5),
    "system.stopping": (5, 5),
    "system.error": (3, 3),
}

_BATCH = 500
SINGLY = 10


def clean(text: str, limit: int = 200) -> str:
    """Text a client chose, made harmless for a log: one line, no control or direction characters, cut."""
    return "".join(c for c in text if unicodedata.category(c)[0] != "C")[:limit]


def _clean(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    return value if value is None or isinstance(value, bool | int | float) else clean(str(value))


class AuditLog:
    """Makes events and records them. One for each process."""

    def __init__(self, node: str, app_version: str, *, queue_size: int = 10_000) -> None:
        self._node = node
        self._app_version = app_version
        self._queue_size = queue_size
        self._queue: deque[Event] = deque()
        self._flushing = asyncio.Lock()
        self.lost = 0
        self._minute: datetime | None = None
        self._seen: Counter[tuple[str | None, ...]] = Counter()
        self._folded: dict[tuple[str | None, ...], Event] = {}
        # What has happened since the start, by (event, outcome); metrics read it.
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def waiting(self) -> int:
        """Events that are not yet written."""
        return len(self._queue)

    def event(
        self,
        name: str,
        outcome: str,
        caller: Caller,
        now: datetime,
        /,
        *,
        reason: str | None = None,
        pairing_id: UUID | None = None,
        auth_method: str | None = None,
        **attrs: object,
    ) -> Event:
        """The event of that name; `outcome` is success, failure, denied or error."""
        made = self.draft(
            name,
            outcome,
            caller,
            now,
            reason=reason,
            pairing_id=pairing_id,
            auth_method=auth_method,
            **attrs,
        )
        self.count(made)
        return made

    def count(self, event: Event) -> None:
        """The event has happened."""
        self.counts[(event.event, event.outcome)] += 1

    def draft(
        self,
        name: str,
        outcome: str,
        caller: Caller,
        now: datetime,
        /,
        *,
        reason: str | None = None,
        pairing_id: UUID | None = None,
        auth_method: str | None = None,
        **attrs: object,
    ) -> Event:
        """As `event`, for one that may or may not happen; `count` it once it has."""
        good, bad = EVENTS[name]
        return Event(
            event_id=uuid4(),
            event=name,
            severity=good if outcome == "success" else bad,
            outcome=outcome,
            occurred_at=now,
            node=self._node,
            app_version=self._app_version,
            actor_kind=caller.kind,
            reason=reason,
            actor_subject=caller.subject,
            auth_method=auth_method,
            address=caller.address,
            request_id=caller.request_id,
            connection_id=caller.connection_id,
            pairing_id=pairing_id,
            attrs={key: _clean(value) for key, value in attrs.items()},
        )

    async def record(self, conn: AsyncConnection, *events: Event) -> None:
        """Record in the transaction of the act: if the one fails, so does the other."""
        await store.add(conn, events)

    def enqueue(self, event: Event) -> None:
        """Record soon. When more waits than the queue holds, the event is counted as lost.

        Of one event from one source, the first ten of a minute are recorded singly, the rest as one row
        with a `count`: nobody floods the log.
        """
        key = (event.event, event.reason, event.actor_subject, event.address)
        minute = event.occurred_at.replace(second=0, microsecond=0)
        if minute != self._minute:
            self._unfold()
            self._minute = minute
        seen = self._seen[key] = self._seen[key] + 1
        if seen > SINGLY:
            self._folded[key] = replace(event, count=seen - SINGLY)
            return
        self._append(event)

    def _unfold(self) -> None:
        """Record what the past minute's floods came to."""
        folded, self._folded = self._folded, {}
        self._seen.clear()
        for event in folded.values():
            self._append(event)

    def _append(self, event: Event) -> None:
        if len(self._queue) >= self._queue_size:
            self.lost += 1
        else:
            self._queue.append(event)

    async def flush(self, deps: Deps, caller: Caller, now: datetime, *, last: bool = False) -> None:
        """Write what waits; at the `last` time also what is still being counted.

        Raises Unavailable if the database is away; then it goes on waiting.
        """
        # The timer and the end of the server may both flush: one after the other, or events come twice.
        async with self._flushing:
            if last or now.replace(second=0, microsecond=0) != self._minute:
                self._unfold()
            while self._queue:
                batch = [self._queue[i] for i in range(min(_BATCH, len(self._queue)))]
                try:
                    async with deps.database.transaction() as conn:
                        await store.add(conn, batch)
                except Unavailable:
                    raise
                except Exception:
                    await self._add_singly(deps, batch)
                for _ in batch:
                    self._queue.popleft()
        if self.lost:
            lost, self.lost = self.lost, 0
            log.error("%d audit events were lost: the queue was full", lost)
            self.enqueue(self.event("audit.gap", "error", caller, now, lost=lost))

    async def _add_singly(self, deps: Deps, batch: Sequence[Event]) -> None:
        """One event that the database refuses must not hold up the others for good."""
        for event in batch:
            try:
                async with deps.database.transaction() as conn:
                    await store.add(conn, [event])
            except Unavailable:
                raise
            except Exception:
                log.exception("the database refuses an event %s", event.event)
                self.lost += 1


async def make_partitions(deps: Deps) -> int:
    """Make the partitions of the months to come. How many."""
    async with deps.database.transaction() as conn:
        return await partitions.make(conn)


async def role_of(conn: AsyncConnection, subject: str | None) -> str | None:
    """The role of a built-in, enabled user; None for anybody else."""
    try:
        user = await users.by_id(conn, UUID(subject)) if subject else None
    except ValueError:
        return None
    return user.role if user and user.disabled_at is None else None
