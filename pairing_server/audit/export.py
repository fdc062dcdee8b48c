"""Taking the audit log away: events in pages, oldest first, or with their seals; recorded when it begins and ends.

An export is read in short transactions, one a page, and is never whole in memory. That it began is recorded before
the first byte goes out; how much it was and its SHA-256, when it has ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.query import Question, actor_of, ask, names_in
from pairing_server.audit.seals import sealed_lines
from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter, Kind
from pairing_server.audit.store.search import Place, Recorded
from pairing_server.request_context import RequestContext
from pairing_server.services.deps import Deps
from pairing_server.store.audit_events import Event

PAGE = 1000
# The format whose lines carry the seals.
SEALED = "jsonl"


@dataclass(slots=True)
class Export:
    """One export. `line` makes one event's line, `head` comes first; both are not asked for SEALED."""

    deps: Deps
    context: RequestContext
    question: Question
    form: str
    head: str = ""
    line: Callable[[Recorded, dict[str, str]], str] | None = None
    rows: int = 0
    # How far in time it has come.
    reached: datetime | None = None
    which: Filter = field(default_factory=Filter)
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """Of what has gone out."""
        return str(self._digest.hexdigest())

    async def begin(self) -> None:
        """Record that it begins. Raises Forbidden, ValidationFailed, Unavailable."""

        async def answer(conn: AsyncConnection) -> None:
            which = await actor_of(conn, self.question)
            # What comes while it goes on is not in it, or it might never end.
            self.which = replace(which, until=min(which.until or self.context.now, self.context.now))
            begun = self._event("success", self.context.now, state="begun")
            await self.deps.audit.record(conn, begun)

        await ask(self.deps, self.context, "/api/audit/export", answer)

    async def end(self, now: datetime, *, complete: bool) -> None:
        """Record how it ended."""
        ended = self._event(
            "success" if complete else "failure",
            now,
            state="complete" if complete else "broken_off",
            rows=self.rows,
            sha256=self.sha256,
        )
        async with self.deps.reading.transaction() as conn:
            await self.deps.audit.record(conn, ended)

    def _event(self, outcome: str, now: datetime, **attrs: Any) -> Event:
        told = self.question.told()
        return self.deps.audit.event(
            "audit.export", outcome, self.context.at(now), format=self.form, **attrs, **told
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """What goes out, a page at a time."""
        lines = self._sealed() if self.form == SEALED else self._plain()
        async for text in lines:
            chunk = text.encode()
            self._digest.update(chunk)
            yield chunk

    async def _plain(self) -> AsyncIterator[str]:
        if self.head:
            yield self.head
        place: Place | None = None
        more = True
        while more:
            async with self.deps.reading.transaction() as conn:
                page = await search.page(conn, self.which, PAGE, place, oldest_first=True)
                names = await names_in(conn, page.events)
            place, more = page.next, page.next is not None
            self.rows += len(page.events)
            self.reached = place.recorded_at if place else self.which.until
            if page.events and self.line is not None:
                yield "".join(self.line(recorded, names) for recorded in page.events)

    async def _sealed(self) -> AsyncIterator[str]:
        waiting: list[str] = []
        wanted = self._keep if self.question.told() else None
        async for line in sealed_lines.lines(self.deps, self.context.now, months=self._months(), keep=wanted):
            waiting.append(line)
            if line.startswith('{"seq"'):
                self.rows += 1
            if len(waiting) >= PAGE:
                yield "\n".join(waiting) + "\n"
                waiting.clear()
        if waiting:
            yield "\n".join(waiting) + "\n"

    def _months(self) -> list[str] | None:
        """The months of the question's time, as partitions are named; None: all."""
        since, until = self.question.which.since, self.which.until or self.context.now
        if since is None:
            return None
        months, at = [], since.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while at < until:
            months.append(f"{at:%Y%m}")
            at = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
        return months

    def _keep(self, row: Any) -> bool:
        """Whether the question asks for the event, as its sealed line has it."""
        which, recorded_at = self.which, datetime.fromisoformat(row["recorded_at"])
        self.reached = recorded_at
        return (
            (which.since is None or recorded_at >= which.since)
            and (which.until is None or recorded_at < which.until)
            and which.has(Kind(row["event"], row["outcome"], row["severity"]))
            and which.actor in (None, row["actor"])
            and (which.pairing is None or str(which.pairing) == row["pairing_id"])
            and (which.connection is None or str(which.connection) == row["connection_id"])
            and (which.address is None or _inside(row["address"], which.address))
        )


def _inside(address: str | None, network: IPv4Network | IPv6Network) -> bool:
    return address is not None and ip_address(address) in network
