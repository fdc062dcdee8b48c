"""The audit log: what is recorded, in the act's own transaction or by a bounded queue. Who may read it: audit/query.py."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.events import EVENTS
from pairing_server.audit.folding import Floods
from pairing_server.audit.queue import Queue
from pairing_server.audit.spool import Spool
from pairing_server.audit.store import partitions
from pairing_server.store import audit_events as store
from pairing_server.store import users
from pairing_server.store.audit_events import Event
from pairing_server.text import clean

if TYPE_CHECKING:
    from pairing_server.request_context import RequestContext
    from pairing_server.services.deps import Deps

log = logging.getLogger(__name__)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    return value if value is None or isinstance(value, bool | int | float) else clean(str(value))


class AuditLog:
    """Makes events and records them. One for each process."""

    # Whether an attribute that the inventory lacks is an error: in tests it is, at work it must stop no act.
    strict = False

    def __init__(self, node: str, app_version: str, *, queue_size: int = 10_000) -> None:
        self._node = node
        self._app_version = app_version
        self._queue = Queue(queue_size)
        self._floods = Floods()
        self._flushing = asyncio.Lock()
        self._gap_noted: datetime | None = None
        self._told_lost = 0
        # What has happened since the start, by (event, outcome); metrics read it.
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def app_version(self) -> str:
        return self._app_version

    @property
    def waiting(self) -> int:
        """Events that are not yet written."""
        return len(self._queue)

    def event(
        self,
        name: str,
        outcome: str,
        context: RequestContext,
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
            context,
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
        context: RequestContext,
        /,
        *,
        reason: str | None = None,
        pairing_id: UUID | None = None,
        auth_method: str | None = None,
        **attrs: object,
    ) -> Event:
        """As `event`, for one that may or may not happen; `count` it once it has."""
        if (spec := EVENTS.get(name)) is None:
            raise ValueError(f"{name} is not in the inventory: audit/events.py and docs/audit.md")
        if self.strict and not spec.attrs.issuperset(attrs):
            raise ValueError(f"{name} does not tell {sorted(set(attrs) - spec.attrs)}: audit/events.py")
        return Event(
            event_id=uuid4(),
            event=name,
            severity=spec.good if outcome == "success" else spec.bad,
            outcome=outcome,
            occurred_at=context.now,
            node=self._node,
            app_version=self._app_version,
            actor_kind=context.kind,
            reason=reason,
            actor_subject=context.subject,
            auth_method=auth_method,
            address=context.address,
            request_id=context.request_id,
            connection_id=context.connection_id,
            pairing_id=pairing_id,
            attrs={key: _clean(value) for key, value in attrs.items()},
        )

    async def record(self, conn: AsyncConnection, *events: Event) -> None:
        """Record in the transaction of the act: if the one fails, so does the other."""
        await store.add(conn, events)

    async def refuse(self, conn: AsyncConnection, *events: Event) -> None:
        """As `record`, for acts that are refused, of which anybody can cause a flood: those that go into a count
        are recorded soon, as those of `enqueue` are."""
        singly = [event for event in events if not self._folds(event)]
        if singly:
            await store.add(conn, singly)

    def enqueue(self, event: Event) -> None:
        """Record soon.

        Of one event from one source, the first ten of a minute are recorded singly, the rest as one row
        with a `count`: nobody floods the log.
        """
        if not self._folds(event):
            self._queue.put(event)

    def _folds(self, event: Event) -> bool:
        if self._floods.is_over(event.occurred_at):
            self._unfold()
        return self._floods.takes(event)

    def _unfold(self) -> None:
        for event in self._floods.take_out():
            self._queue.put(event)

    @property
    def lost(self) -> int:
        """How many events were lost since the start."""
        return self._told_lost + self._queue.lost.total()

    @property
    def spooled(self) -> int:
        """Bytes of events on the disk."""
        return self._queue.spool.size if self._queue.spool else 0

    def keep_in(self, folder: Path, now: datetime) -> int:
        """Keep what waits in this folder, too, and bring in what dead processes have left there; bytes of theirs."""
        spool = Spool(folder)
        try:
            spool.open(now.timestamp())
        except OSError as error:
            log.warning("audit events that wait are kept in memory only: %s", error)
            return 0
        self._queue.spool = spool
        return spool.size

    def close(self) -> None:
        """What is not in the database stays on the disk for the next start."""
        self._queue.close()

    async def flush(self, deps: Deps, context: RequestContext, *, last: bool = False) -> None:
        """Write what waits; at the `last` time also what is still being counted.

        Raises Unavailable if the database is away; then it goes on waiting.
        """
        # The timer and the end of the server may both flush: one after the other, or events come twice.
        async with self._flushing:
            if last or self._floods.is_over(context.now):
                self._unfold()
            try:
                await self._queue.flush(deps, context.now)
            finally:
                self._note_gap(context)

    def _note_gap(self, context: RequestContext) -> None:
        """A loss is an event, too; while it goes on, one a minute."""
        if not self._queue.lost.total() or (
            self._gap_noted and context.now - self._gap_noted < timedelta(minutes=1)
        ):
            return
        lost = self._queue.lost
        told = " ".join(f"{severity}:{count}" for severity, count in sorted(lost.items()) if count)
        gap = self.event("audit.gap", "error", context, lost=lost.total(), lost_by_severity=told)
        if not self._queue.offer(gap):
            return
        log.error("%d audit events were lost (severity:count %s)", lost.total(), told)
        self._gap_noted = context.now
        self._told_lost += lost.total()
        self._queue.lost = Counter()


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
