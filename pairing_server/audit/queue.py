"""Events that wait for the database: in memory, and on disk as well.

They are written in batches. While the database is away they wait. Events that do not fit into memory are read from the
disk again, and so are those of a process that was killed, each once, by its event id.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pairing_server.audit.spool import Segment, Spool
from pairing_server.db.database import Database
from pairing_server.errors import Unavailable
from pairing_server.store import audit_events as store
from pairing_server.store.audit_events import Event
from pairing_server.tracing import OFF, Traces

log = logging.getLogger(__name__)

BATCH = 500
# Clocks of servers and database differ, and an event that was under way may have been committed late.
_SLACK = timedelta(minutes=10)
_INFO = 6


class EventQueue:
    """At most `size` events in memory; the spool, if there is one, has these and all that do not fit.

    Events are written through `database`; whether one is there already is looked up through `reading`.
    """

    def __init__(
        self, database: Database, reading: Database, size: int = 10_000, traces: Traces = OFF
    ) -> None:
        self._database = database
        self._reading = reading
        self._size = size
        self._traces = traces
        # The time of each event, and its line. They are on disk, too.
        self._waiting: deque[tuple[datetime, bytes]] = deque()
        self.spool: Spool | None = None
        # Whether events are on disk that are not in memory.
        self._behind = False
        # Whether it is unknown if the last batch was committed.
        self._doubtful = False
        self.lost: Counter[int] = Counter()

    def __len__(self) -> int:
        """How many wait in memory."""
        return len(self._waiting)

    def put(self, event: Event) -> None:
        """Keep the event, or count it as lost."""
        if not self.offer(event):
            self.lost[event.severity] += 1

    def offer(self, event: Event) -> bool:
        """Keep the event. False if there is no room for it."""
        needed = event.severity < _INFO
        line = store.as_json([event])[1:-1].encode()
        on_disk = self.spool is not None and self.spool.append(line, needed=needed)
        if not self._behind and len(self._waiting) < self._size:
            self._waiting.append((event.occurred_at, line))
        elif on_disk:
            self._behind = True
        else:
            return False
        return True

    async def flush(self, now: datetime) -> None:
        """Write what waits. Raises Unavailable if the database is away; the events go on waiting then."""
        try:
            await self._replay(now)
            while self._waiting or self._behind:
                with self._traces.span("audit flush") as span:
                    span.set_attribute("pairing.audit.events", len(self._waiting))
                    await self._write()
                if self._behind and self.spool is not None:
                    self.spool.turn(now.timestamp())
                    self._behind = False
                    await self._replay(now)
        except Unavailable:
            await self._sync()
            raise
        if self.spool is not None:
            _or_warn(self.spool.clear)

    async def _write(self) -> None:
        """Empty the memory, oldest first."""
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
            lines = [line for _, line in batch]
            if self._doubtful:
                since = min(occurred_at for occurred_at, _ in batch)
                lines = await self._unknown(lines, [(since - _SLACK, None)])
            self._doubtful = True
            await self._add(lines)
            self._doubtful = False
            for _ in batch:
                self._waiting.popleft()

    async def _add(self, lines: Sequence[bytes]) -> None:
        try:
            async with self._database.transaction() as conn:
                await store.add_lines(conn, lines)
        except Unavailable:
            raise
        except Exception:
            if len(lines) == 1:
                log.exception("audit event refused by the database")
                self.lost[_severity(lines[0])] += 1
                return
            # One event that is refused must not keep the others waiting for ever.
            for line in lines:
                await self._add([line])

    async def _replay(self, now: datetime) -> None:
        """Write what is on disk only."""
        while self.spool is not None and (segment := self.spool.oldest()) is not None:
            offset, count = 0, 0
            while True:
                lines, offset = await asyncio.to_thread(segment.read, offset, BATCH)
                if not lines:
                    break
                good = [line for line in lines if _is_event(line)]
                self.lost[_INFO] += len(lines) - len(good)
                if good:
                    fresh = await self._unknown(good, _when(segment, good))
                    if fresh:
                        await self._add(fresh)
                    count += len(fresh)
            self.spool.drop(segment)
            log.info("audit events replayed from disk", extra={"count": count})

    async def _unknown(
        self, lines: Sequence[bytes], times: Sequence[tuple[datetime, datetime | None]]
    ) -> list[bytes]:
        """The lines of events that are not in the database; the times are when they may have been recorded."""
        ids = [str(json.loads(line)["event_id"]) for line in lines]
        known: set[str] = set()
        async with self._reading.transaction() as conn:
            for since, until in times:
                known |= await store.known(conn, ids, since, until)
        return [line for line, event_id in zip(lines, ids, strict=True) if event_id not in known]

    async def _sync(self) -> None:
        if self.spool is not None:
            await asyncio.to_thread(_or_warn, self.spool.sync)

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()


def _or_warn(act: Callable[[], object]) -> None:
    try:
        act()
    except OSError as error:
        log.error("audit spool failed", extra={"error": str(error)})


def _is_event(line: bytes) -> bool:
    try:
        found = json.loads(line)
        datetime.fromisoformat(found["occurred_at"])
        return isinstance(found["event_id"], str)
    except (ValueError, KeyError, TypeError):
        return False


def _severity(line: bytes) -> int:
    found = json.loads(line).get("severity")
    return found if isinstance(found, int) else _INFO


def _when(segment: Segment, lines: Sequence[bytes]) -> list[tuple[datetime, datetime | None]]:
    """When these may have been recorded: about when they happened, or since the segment was first written."""
    times = [datetime.fromisoformat(json.loads(line)["occurred_at"]) for line in lines]
    begun = datetime.fromtimestamp(segment.since, UTC) - _SLACK
    return [(min(times) - _SLACK, max(times) + _SLACK), (begun, None)]
