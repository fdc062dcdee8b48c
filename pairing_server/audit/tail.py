"""Following the audit log live: a request waits until events come or its wait is over.

The scheduler answers all waiting requests in one transaction. A question that is followed is recorded once, when it
begins. A follower that goes on within five minutes is known by a random token from the answer before; a server that does
not know the token records the question again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.query import AuditReader, Question, actor_of, may_read, names_in
from pairing_server.audit.store import tail as store
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Recorded
from pairing_server.audit.store.tail import Position
from pairing_server.errors import LoginEnded, RateLimited
from pairing_server.request_context import RequestContext

# How many requests may wait at once, and how many tokens are remembered.
MOST_WAITING = 50
MOST_KNOWN = 1_000
PAGE = 500
REMEMBERED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class TailBatch:
    """The events that have come, oldest first; `token` and `position` say where to go on."""

    events: list[Recorded]
    position: Position
    names: dict[str, str]
    token: str


@dataclass(eq=False, slots=True)
class _Waiter:
    context: RequestContext
    which: Filter
    position: Position
    token: str
    until: datetime
    answer: asyncio.Future[TailBatch | None]

    def finish(self, batch: TailBatch | None) -> None:
        if not self.answer.done():
            self.answer.set_result(batch)


class AuditTail:
    """The requests that wait on this server. One for each process."""

    def __init__(self, reader: AuditReader) -> None:
        self._reader = reader
        self.waiting: set[_Waiter] = set()
        # The question of each token, and when it was last used.
        self._known: OrderedDict[str, tuple[str, datetime]] = OrderedDict()

    async def follow(
        self, context: RequestContext, question: Question, after: tuple[str, Position] | None, wait: timedelta
    ) -> TailBatch:
        """The events since `after` (None: since now), as soon as there are any, or none after the wait.

        Raises Forbidden, ValidationFailed, RateLimited (too many wait), Unavailable.
        """
        if len(self.waiting) >= MOST_WAITING:
            raise RateLimited(5, "Too many clients follow the audit log. Try again in a few seconds.")
        token, position = after if after is not None else ("", None)
        what = f"{context.subject} {context.kind} {sorted(question.attributes().items())}"
        fresh = not self._knows(token, what, context.now)
        if fresh:
            token = secrets.token_urlsafe(9)

        async def answer(conn: AsyncConnection) -> tuple[Filter, TailBatch]:
            which = await actor_of(conn, question)
            if fresh:
                await self._reader.record(conn, context, kind="follow", **question.attributes())
            return which, await _read(conn, which, position or await store.here(conn), token)

        which, batch = await self._reader.ask(context, "/api/audit/follow", answer)
        self._remember(token, what, context.now)
        if batch.events or not wait:
            return batch
        future: asyncio.Future[TailBatch | None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(context, which, batch.position, token, context.now + wait, future)
        self.waiting.add(waiter)
        try:
            return await future or TailBatch([], waiter.position, {}, token)
        finally:
            self.waiting.discard(waiter)

    def _knows(self, token: str, what: str, now: datetime) -> bool:
        known = self._known.get(token)
        return known is not None and known[0] == what and now - known[1] < REMEMBERED

    def _remember(self, token: str, what: str, now: datetime) -> None:
        self._known[token] = (what, now)
        self._known.move_to_end(token)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def answer_waiting(self, now: datetime) -> None:
        """Answer the requests for which there are events, whose wait is over, or whose user may not read any more."""
        waiting = [waiter for waiter in self.waiting if not waiter.answer.done()]
        if not waiting:
            return
        try:
            async with self._reader.database.transaction() as conn:
                for waiter in waiting:
                    await _answer(conn, waiter)
        finally:
            for waiter in waiting:
                if now >= waiter.until:
                    waiter.finish(None)

    def stop(self) -> None:
        """Answer all waiting requests: there are no events."""
        for waiter in self.waiting:
            waiter.finish(None)


async def _read(conn: AsyncConnection, which: Filter, position: Position, token: str) -> TailBatch:
    events, position = await store.newer(conn, which, position, PAGE)
    return TailBatch(events, position, await names_in(conn, events), token)


async def _answer(conn: AsyncConnection, waiter: _Waiter) -> None:
    batch = None
    with suppress(LoginEnded):
        if await may_read(conn, waiter.context):
            batch = await _read(conn, waiter.which, waiter.position, waiter.token)
            waiter.position = batch.position
            if not batch.events:
                return
    # A user who may not read any more gets an empty answer, and the refusal for the next request.
    waiter.finish(batch)
