"""Questions to the audit log: who may ask, and the record of each question in the log itself.

A question is recorded in the transaction that answers it. To add one: its SQL in audit/store/, a method here, its answer,
handler and route in web/audit/handlers.py, its command in cli/audit/commands.py, and its heading in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit import summary
from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals import Seal, format_key
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.store import seals as sealed
from pairing_server.audit.store import search as store
from pairing_server.audit.store.catalogue import isolated
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.seals import Unsealed
from pairing_server.audit.store.search import Page, Place, Recorded
from pairing_server.audit.summary import SUMMARY_OF, TIMELINE_OF, Summary, Timeline
from pairing_server.db.database import Database
from pairing_server.errors import Forbidden, LoginEnded, NotFound, Unavailable, ValidationFailed
from pairing_server.request_context import RequestContext
from pairing_server.store import logins, users

T = TypeVar("T")

READERS = ("auditor", "admin")
PAGE = 500
# How many seals are listed.
RECENT = 20
_CANCELLED = "57014"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a filter, in which an account's name may stand for the actor."""

    which: Filter = Filter()
    user: str | None = None

    def attributes(self) -> dict[str, Any]:
        """What is asked, as attributes of the event that records it."""
        return self.which.attributes() | ({"user": self.user} if self.user is not None else {})


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page, and the names of the accounts in it by their subject."""

    events: list[Recorded]
    next: Place | None
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class EventDetails:
    """One event, the seal that covers it, and the names of accounts."""

    event: Recorded
    seal: Seal | None
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class SealProgress:
    """The newest seals first. `copied`: the number of the last one that was copied outside, None if none are."""

    seals: list[Seal]
    unsealed: Unsealed
    public_key: str
    copied: int | None


async def may_read(conn: AsyncConnection, context: RequestContext) -> bool:
    """Whether the caller is an auditor or an admin: by role, or by running commands on this machine. Raises LoginEnded."""
    if context.kind == "admin":
        return True
    if (reason := await logins.refusal_of(conn, context)) is not None:
        raise LoginEnded(reason)
    return await users.role_of(conn, context.subject) in READERS


def not_a_reader() -> Forbidden:
    return Forbidden("Only an auditor or an admin may read the audit log. Ask an admin for the role.")


async def actor_of(conn: AsyncConnection, question: Question) -> Filter:
    """The filter, with the account's subject as the actor. Raises ValidationFailed."""
    if question.user is None:
        return question.which
    user = await users.by_name(conn, question.user)
    if user is None:
        raise ValidationFailed(fields={"user": ["No account has this name."]})
    if question.which.actor not in (None, user.subject):
        raise ValidationFailed(fields={"user": ["Give either a user or an actor."]})
    return replace(question.which, actor=user.subject)


async def names_in(conn: AsyncConnection, events: Sequence[Recorded]) -> dict[str, str]:
    """The names of the accounts that have acted."""
    return await users.names(conn, {e.event.actor_subject for e in events if e.event.actor_subject})


class AuditReader:
    """Answers questions. All methods raise Forbidden, LoginEnded, Unavailable, and ValidationFailed for a user that is unknown.

    `database` has connections of its own, so that a long question delays no device.
    """

    def __init__(self, database: Database, audit: AuditLog, sealer: Sealer) -> None:
        self.database = database
        self.audit = audit
        self.sealer = sealer

    async def ask(
        self, context: RequestContext, route: str, answer: Callable[[AsyncConnection], Awaitable[T]]
    ) -> T:
        """What `answer` finds, for a caller who may read the log.

        Raises LoginEnded, Forbidden, which is recorded, and Unavailable for what takes too long.
        """
        try:
            async with self.database.transaction() as conn:
                if await may_read(conn, context):
                    return await answer(conn)
                denied = self.audit.event("access.denied", "denied", context, route=route, needed="auditor")
                await self.audit.refuse(conn, denied)
        except Unavailable as error:
            if getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) != _CANCELLED:
                raise
            raise Unavailable(
                "The answer takes too long to find. Ask for less: narrow it with since and until."
            ) from error
        raise not_a_reader()

    async def record(self, conn: AsyncConnection, context: RequestContext, **attributes: Any) -> None:
        """Record the question."""
        await self.audit.record(conn, self.audit.event("audit.query", "success", context, **attributes))

    async def page(
        self, context: RequestContext, question: Question, limit: int, before: Place | None = None
    ) -> EventPage:
        """A page of the log, newest first."""

        async def find(conn: AsyncConnection, which: Filter) -> Page:
            return await store.page(conn, which, limit, before)

        return await self._page(context, "/api/audit", question, find)

    async def newest(self, context: RequestContext, question: Question, limit: int) -> EventPage:
        """The newest `limit` events that match, from as many pages as it takes; one question, recorded once."""

        async def find(conn: AsyncConnection, which: Filter) -> Page:
            page = await store.page(conn, which, min(limit, PAGE))
            found = page.events
            while page.next is not None and len(found) < limit:
                page = await store.page(conn, which, min(limit - len(found), PAGE), page.next)
                found += page.events
            return Page(found, page.next)

        return await self._page(context, "audit list", question, find)

    async def _page(
        self,
        context: RequestContext,
        route: str,
        question: Question,
        find: Callable[[AsyncConnection, Filter], Awaitable[Page]],
    ) -> EventPage:
        async def answer(conn: AsyncConnection) -> EventPage:
            page = await find(conn, await actor_of(conn, question))
            await self.record(conn, context, rows=len(page.events), **question.attributes())
            return EventPage(page.events, page.next, await names_in(conn, page.events))

        return await self.ask(context, route, answer)

    async def event(self, context: RequestContext, seq: int) -> EventDetails:
        """The event of that number. Raises NotFound, too."""

        async def answer(conn: AsyncConnection) -> EventDetails | None:
            event = await store.one(conn, seq)
            await self.record(conn, context, rows=0 if event is None else 1, number=seq)
            if event is None:
                return None
            async with isolated(conn) as tables:
                seal = await sealed.of_event(tables, seq)
            return EventDetails(event, seal, await names_in(conn, [event]))

        found = await self.ask(context, "/api/audit/events", answer)
        if found is None:
            raise NotFound("The audit log has no event with this number. Check the number.")
        return found

    async def timeline(self, context: RequestContext, question: Question) -> Timeline:
        """How much matches, by steps; of the last seven days unless the question says when."""

        async def answer(conn: AsyncConnection) -> Timeline:
            which = await actor_of(conn, question)
            found = await summary.timeline(conn, *summary.within(which, TIMELINE_OF, context.now))
            rows = len(found.bars)
            await self.record(conn, context, kind="timeline", rows=rows, **question.attributes())
            return found

        return await self.ask(context, "/api/audit/timeline", answer)

    async def summary(self, context: RequestContext, question: Question) -> Summary:
        """What a reviewer asks first; of the question's time, or the last 24 hours."""

        async def answer(conn: AsyncConnection) -> Summary:
            found = await summary.summary(conn, *summary.within(question.which, SUMMARY_OF, context.now))
            await self.record(conn, context, kind="summary", **question.attributes())
            return found

        return await self.ask(context, "/api/audit/summary", answer)

    async def seals(self, context: RequestContext) -> SealProgress:
        """How far the log is sealed. Whether the seals hold: audit/seals/verification.py."""

        async def answer(conn: AsyncConnection) -> SealProgress:
            async with isolated(conn) as tables:
                seals = await sealed.newest(tables, RECENT)
                unsealed = await sealed.unsealed(tables, seals[0] if seals else None)
            await self.record(conn, context, kind="seals", rows=len(seals))
            copied = self.sealer.memory.copied() if self.sealer.copy is not None else None
            return SealProgress(seals, unsealed, format_key(self.sealer.key.public), copied)

        return await self.ask(context, "/api/audit/seals", answer)
