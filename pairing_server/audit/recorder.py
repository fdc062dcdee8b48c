"""Recording in the audit log, in the transaction of the act or by a bounded queue. Questions to it: audit/query.py."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.events import EVENTS
from pairing_server.audit.folding import Folding
from pairing_server.audit.queue import EventQueue
from pairing_server.audit.spool import Spool
from pairing_server.request_context import RequestContext
from pairing_server.store import audit_events as store
from pairing_server.store.audit_events import Event
from pairing_server.text import clean

log = logging.getLogger(__name__)

# What of an event is a column and not in `attrs`, besides what every event has.
_COLUMNS = ("reason", "pairing_id", "auth_method")


def _clean(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    return value if value is None or isinstance(value, bool | int | float) else clean(str(value))


class AuditLog:
    """Makes events and records them. One for each process."""

    # Whether an attribute that the inventory lacks is an error. Tests set it; in production it must stop no act.
    strict = False

    def __init__(self, node: str, app_version: str, queue: EventQueue) -> None:
        self.node = node
        self.app_version = app_version
        self._queue = queue
        self._folding = Folding()
        self._flushing = asyncio.Lock()
        self._gap_noted: datetime | None = None
        self._reported_lost = 0
        # How often each (event, outcome) has happened since the start; metrics read it.
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def waiting(self) -> int:
        """Events that are not yet written."""
        return len(self._queue)

    @property
    def lost(self) -> int:
        """How many events were lost since the start."""
        return self._reported_lost + self._queue.lost.total()

    @property
    def spooled(self) -> int:
        """Bytes of events on the disk."""
        return self._queue.spool.size if self._queue.spool else 0

    def event(self, name: str, outcome: str, context: RequestContext, /, **given: Any) -> Event:
        """The event of that name; `outcome` is success, failure, denied or error.

        `given`: its attributes, and the columns reason, pairing_id and auth_method.
        """
        event = self.draft(name, outcome, context, **given)
        self.count(event)
        return event

    def count(self, event: Event) -> None:
        """The event has happened."""
        self.counts[(event.event, event.outcome)] += 1

    def draft(self, name: str, outcome: str, context: RequestContext, /, **given: Any) -> Event:
        """As `event`, for one that may or may not happen; `count` it once it has."""
        if (spec := EVENTS.get(name)) is None:
            raise ValueError(f"{name} is not in the inventory: audit/events.py and docs/audit.md")
        columns = {column: given.pop(column) for column in _COLUMNS if column in given}
        if self.strict and not spec.attrs.issuperset(given):
            raise ValueError(f"{name} has no attributes {sorted(set(given) - spec.attrs)}: audit/events.py")
        return Event(
            event_id=uuid4(),
            event=name,
            severity=spec.good if outcome == "success" else spec.bad,
            outcome=outcome,
            occurred_at=context.now,
            node=self.node,
            app_version=self.app_version,
            actor_kind=context.kind,
            actor_subject=context.subject,
            address=context.address,
            request_id=context.request_id,
            connection_id=context.connection_id,
            attrs={key: _clean(value) for key, value in given.items()},
            **columns,
        )

    async def record(self, conn: AsyncConnection, *events: Event) -> None:
        """Record in the transaction of the act: if the one fails, so does the other."""
        await store.add(conn, events)

    async def refuse(self, conn: AsyncConnection, *events: Event) -> None:
        """As `record`, for refused acts, which any client can repeat: those beyond the first ten of a minute are
        recorded later as one row, as by `enqueue`."""
        singly = [event for event in events if not self._folds(event)]
        if singly:
            await store.add(conn, singly)

    def enqueue(self, event: Event) -> None:
        """Record soon.

        Of one event from one source the first ten of a minute are recorded singly, the rest as one row with a
        `count`, so that no client can flood the log.
        """
        if not self._folds(event):
            self._queue.put(event)

    def enqueue_event(self, name: str, outcome: str, context: RequestContext, /, **given: Any) -> None:
        """Make the event as `event` does, and `enqueue` it."""
        self.enqueue(self.event(name, outcome, context, **given))

    def _folds(self, event: Event) -> bool:
        if self._folding.is_over(event.occurred_at):
            self._unfold()
        return self._folding.folds(event)

    def _unfold(self) -> None:
        for event in self._folding.take_out():
            self._queue.put(event)

    def spool_to(self, folder: Path, now: datetime) -> int:
        """Keep waiting events in this folder, too, and take over those of dead processes; how many bytes these have."""
        spool = Spool(folder)
        try:
            spool.open(now.timestamp())
        except OSError as error:
            log.warning("audit spool not usable, events wait in memory only", extra={"error": str(error)})
            return 0
        self._queue.spool = spool
        return spool.size

    def close(self) -> None:
        """What is not in the database stays on the disk for the next start."""
        self._queue.close()

    async def flush(self, context: RequestContext, *, last: bool = False) -> None:
        """Write what waits; at the `last` time also what is still being counted.

        Raises Unavailable if the database is away; the events go on waiting then.
        """
        # The scheduler and the end of the server may both flush: at the same time they would write events twice.
        async with self._flushing:
            if last or self._folding.is_over(context.now):
                self._unfold()
            try:
                await self._queue.flush(context.now)
            finally:
                self._note_gap(context)

    def _note_gap(self, context: RequestContext) -> None:
        """Record a loss as an event; while losses go on, once a minute."""
        lost = self._queue.lost
        if not lost.total() or (self._gap_noted and context.now - self._gap_noted < timedelta(minutes=1)):
            return
        by_severity = " ".join(f"{severity}:{count}" for severity, count in sorted(lost.items()) if count)
        gap = self.event("audit.gap", "error", context, lost=lost.total(), lost_by_severity=by_severity)
        if not self._queue.offer(gap):
            return
        log.error("audit events lost", extra={"count": lost.total(), "by_severity": by_severity})
        self._gap_noted = context.now
        self._reported_lost += lost.total()
        self._queue.lost = Counter()
