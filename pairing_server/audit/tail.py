"""Following the audit log live: whoever waits is answered when something has come, or when the wait is over.

Who waits is looked after by the timer, all in one transaction. A question that is followed is recorded once, when it
begins; a follower that goes on within a while is known by a word that was drawn for it. A server that does not know the
word records the question again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.query import Question, actor_of, ask, may_read, names_in
from pairing_server.audit.store import tail as store
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Recorded
from pairing_server.audit.store.tail import Position
from pairing_server.errors import RateLimited

if TYPE_CHECKING:
    from pairing_server.request_context import RequestContext
    from pairing_server.services.deps import Deps

# How many may wait at once, and how many are remembered.
MOST_WAITING = 50
MOST_KNOWN = 1_000
PAGE = 500
REMEMBERED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class News:
    """What has come, oldest first; `word` and `position` are where to go on."""

    events: list[Recorded]
    position: Position
    names: dict[str, str]
    word: str


@dataclass(eq=False, slots=True)
class _Waiting:
    context: RequestContext
    which: Filter
    position: Position
    word: str
    until: datetime
    answered: asyncio.Future[News | None]


@dataclass(slots=True)
class Followers:
    """Those who wait on this server. One for each process."""

    waiting: set[_Waiting] = field(default_factory=set)
    # What each word stands for, and when it was last heard.
    known: OrderedDict[str, tuple[str, datetime]] = field(default_factory=OrderedDict)

    def knows(self, word: str, what: str, now: datetime) -> bool:
        heard = self.known.get(word)
        return heard is not None and heard[0] == what and now - heard[1] < REMEMBERED

    def remember(self, word: str, what: str, now: datetime) -> None:
        self.known[word] = (what, now)
        self.known.move_to_end(word)
        while len(self.known) > MOST_KNOWN:
            self.known.popitem(last=False)

    def stop(self) -> None:
        """Answer all who wait: nothing has come."""
        for waiting in self.waiting:
            if not waiting.answered.done():
                waiting.answered.set_result(None)


async def follow(
    deps: Deps,
    context: RequestContext,
    question: Question,
    after: tuple[str, Position] | None,
    wait: timedelta,
) -> News:
    """What has come since `after` (None: since now), as soon as there is something, or nothing after the wait.

    Raises Forbidden, ValidationFailed, RateLimited (too many wait), Unavailable.
    """
    followers = deps.followers
    what = f"{context.subject} {context.kind} {sorted(question.told().items())}"
    if len(followers.waiting) >= MOST_WAITING:
        raise RateLimited(5, "Too many clients follow the audit log. Try again in a few seconds.")
    word, position = after if after is not None else ("", None)
    fresh = not followers.knows(word, what, context.now)

    async def answer(conn: AsyncConnection) -> tuple[Filter, News]:
        which = await actor_of(conn, question)
        if fresh:
            await deps.audit.record(
                conn,
                deps.audit.event("audit.query", "success", context, kind="follow", **question.told()),
            )
        return which, await _look(conn, which, position or await store.here(conn), word)

    if fresh:
        word = secrets.token_urlsafe(9)
    which, news = await ask(deps, context, "/api/audit/follow", answer)
    followers.remember(word, what, context.now)
    if news.events or not wait:
        return news
    answered: asyncio.Future[News | None] = asyncio.get_running_loop().create_future()
    waiting = _Waiting(context, which, news.position, word, context.now + wait, answered)
    followers.waiting.add(waiting)
    try:
        return await answered or News([], waiting.position, {}, word)
    finally:
        followers.waiting.discard(waiting)


async def _look(conn: AsyncConnection, which: Filter, position: Position, word: str) -> News:
    events, position = await store.newer(conn, which, position, PAGE)
    return News(events, position, await names_in(conn, events), word)


async def tell(deps: Deps, now: datetime) -> None:
    """Answer those who wait and have something to hear, whose wait is over, or who may not any more."""
    waiting = [each for each in deps.followers.waiting if not each.answered.done()]
    if not waiting:
        return
    try:
        async with deps.reading.transaction() as conn:
            for each in waiting:
                await _tell(conn, each)
    finally:
        for each in waiting:
            if now >= each.until and not each.answered.done():
                each.answered.set_result(None)


async def _tell(conn: AsyncConnection, each: _Waiting) -> None:
    news = None
    if await may_read(conn, each.context):
        news = await _look(conn, each.which, each.position, each.word)
        each.position = news.position
        if not news.events:
            return
    # Who may not any more is told so by the next question.
    if not each.answered.done():
        each.answered.set_result(news)
