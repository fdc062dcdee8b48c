"""Exporting the audit log: events in pages, oldest first, or with their seals; recorded when it begins and ends.

An export is read in short transactions, one a page, and is never whole in memory. Its beginning is recorded before the
first byte goes out; its size and SHA-256 when it has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit import formats
from pairing_server.audit.query import AuditReader, Question, actor_of, may_read, names_in, not_a_reader
from pairing_server.audit.seals.sealed_lines import SealedLines
from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Place
from pairing_server.request_context import RequestContext

PAGE = 1000


def private(path: str, flags: int) -> int:
    """An opener for `open`: a file that it makes is for its owner alone, since an export names people and addresses."""
    return os.open(path, flags, 0o600)


class Export:
    """One export, in one of the formats of audit/formats/; that named SEALED has the seals, too."""

    def __init__(self, reader: AuditReader, context: RequestContext, question: Question, form: str) -> None:
        self._reader = reader
        self._context = context
        self._question = question
        self._form = form
        self._which = Filter()
        self._digest = hashlib.sha256()
        self.rows = 0
        # How far in time it has come.
        self.reached: datetime | None = None

    @property
    def sha256(self) -> str:
        """Of what has gone out."""
        return self._digest.hexdigest()

    async def begin(self) -> None:
        """Record that it begins. Raises Forbidden, ValidationFailed, Unavailable."""

        async def answer(conn: AsyncConnection) -> None:
            which = await actor_of(conn, self._question)
            # What is recorded while it goes on is not in it, or it might never end.
            now = self._context.now
            self._which = replace(which, until=min(which.until or now, now))
            await self._record(conn, "success", self._context, state="begun")

        await self._reader.ask(self._context, "/api/audit/export", answer)

    async def end(self, now: datetime, *, complete: bool) -> None:
        """Record how it ended."""
        outcome, state = ("success", "complete") if complete else ("failure", "broken_off")
        ended = {"state": state, "rows": self.rows, "sha256": self.sha256}
        async with self._reader.database.transaction() as conn:
            await self._record(conn, outcome, self._context.at(now), **ended)

    async def _record(
        self, conn: AsyncConnection, outcome: str, context: RequestContext, **attributes: Any
    ) -> None:
        audit, asked = self._reader.audit, self._question.attributes()
        event = audit.event("audit.export", outcome, context, format=self._form, **attributes, **asked)
        await audit.record(conn, event)

    async def chunks(self) -> AsyncIterator[bytes]:
        """What goes out, a page at a time. Raises Forbidden and LoginEnded, also in the middle: it may take minutes."""
        texts = self._sealed() if self._form == formats.SEALED else self._plain()
        async for text in texts:
            async with self._reader.database.transaction() as conn:
                if not await may_read(conn, self._context):
                    raise not_a_reader()
            if chunk := text.encode():
                self._digest.update(chunk)
                yield chunk

    async def _plain(self) -> AsyncIterator[str]:
        yield formats.head(self._form)
        place: Place | None = None
        more = True
        while more:
            async with self._reader.database.transaction() as conn:
                page = await search.page(conn, self._which, PAGE, place, search.OLDEST_FIRST)
                names = await names_in(conn, page.events)
            place, more = page.next, page.next is not None
            self.rows += len(page.events)
            self.reached = place.recorded_at if place else self._which.until
            yield "".join(formats.line(self._form, recorded, names) for recorded in page.events)

    async def _sealed(self) -> AsyncIterator[str]:
        source = SealedLines(self._reader.database, self._reader.sealer.key.public)
        which = self._which if self._question.attributes() else None
        now = self._context.now
        async for lines in source.batches(now, months=self._question.which.months(now), which=which):
            events = [line for line in lines if line.startswith('{"seq"')]
            self.rows += len(events)
            if events:
                self.reached = datetime.fromisoformat(json.loads(events[-1])["recorded_at"])
            yield "".join(f"{line}\n" for line in lines)
