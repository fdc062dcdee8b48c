"""Questions to the audit log: who may ask, and that each question stands in the log itself.

A question is recorded in the transaction that answers it. Answers come from connections of their own
(`deps.reading`): a reviewer's long question waits for no device, and no device for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import role_of
from pairing_server.audit.seals import Seal
from pairing_server.audit.store import sealed
from pairing_server.audit.store import search as store
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Place, Recorded
from pairing_server.errors import Forbidden, NotFound, Unavailable, ValidationFailed
from pairing_server.store import users

if TYPE_CHECKING:
    from pairing_server.request_context import RequestContext
    from pairing_server.services.deps import Deps

T = TypeVar("T")

READERS = ("auditor", "admin")
PAGE = 500
_CANCELLED = "57014"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a filter, in which an account's name may stand for the actor."""

    which: Filter = Filter()
    user: str | None = None

    def told(self) -> dict[str, Any]:
        """What is asked, for the log."""
        return self.which.told() | ({"user": self.user} if self.user is not None else {})


@dataclass(frozen=True, slots=True)
class Listed:
    """A page, and the names of the accounts in it by their subject."""

    events: list[Recorded]
    next: Place | None
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """One event, the seal that it is in, and the names of accounts."""

    event: Recorded
    seal: Seal | None
    names: dict[str, str]


async def may_read(conn: AsyncConnection, context: RequestContext) -> bool:
    """Whether the caller is an auditor or an admin: by role, or by running commands on this machine."""
    return context.kind == "admin" or await role_of(conn, context.subject) in READERS


async def ask(
    deps: Deps,
    context: RequestContext,
    route: str,
    answer: Callable[[AsyncConnection], Awaitable[T]],
) -> T:
    """What `answer` finds, for a caller who may read the log.

    Raises Forbidden, which is recorded, and Unavailable for what takes too long.
    """
    found: T | None = None
    try:
        async with deps.reading.transaction() as conn:
            allowed = await may_read(conn, context)
            if allowed:
                found = await answer(conn)
            else:
                await deps.audit.refuse(
                    conn,
                    deps.audit.event("access.denied", "denied", context, route=route, needed="auditor"),
                )
    except Unavailable as error:
        if getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) != _CANCELLED:
            raise
        raise Unavailable(
            "The answer takes too long to find. Ask for less: narrow it with since and until."
        ) from error
    if not allowed:
        raise Forbidden("Only an auditor or an admin may read the audit log. Ask an admin for the role.")
    return found  # type: ignore[return-value]


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


async def list_events(
    deps: Deps, context: RequestContext, question: Question, limit: int, before: Place | None
) -> Listed:
    """A page of the log, newest first. Raises Forbidden, ValidationFailed, Unavailable."""

    async def answer(conn: AsyncConnection) -> Listed:
        page = await store.page(conn, await actor_of(conn, question), limit, before)
        asked = deps.audit.event("audit.query", "success", context, rows=len(page.events), **question.told())
        await deps.audit.record(conn, asked)
        return Listed(page.events, page.next, await names_in(conn, page.events))

    return await ask(deps, context, "/api/audit", answer)


async def gather(deps: Deps, context: RequestContext, question: Question, limit: int) -> Listed:
    """The newest `limit` events that match, however many pages it takes; one question, recorded once.

    Raises as `list_events` does.
    """

    async def answer(conn: AsyncConnection) -> Listed:
        which = await actor_of(conn, question)
        found: list[Recorded] = []
        page = await store.page(conn, which, min(limit, PAGE))
        found += page.events
        while page.next is not None and len(found) < limit:
            page = await store.page(conn, which, min(limit - len(found), PAGE), page.next)
            found += page.events
        asked = deps.audit.event("audit.query", "success", context, rows=len(found), **question.told())
        await deps.audit.record(conn, asked)
        return Listed(found, page.next, await names_in(conn, found))

    return await ask(deps, context, "audit list", answer)


async def one_event(deps: Deps, context: RequestContext, seq: int) -> Found:
    """The event of that number. Raises Forbidden, NotFound."""

    async def answer(conn: AsyncConnection) -> Found | None:
        event = await store.one(conn, seq)
        asked = deps.audit.event(
            "audit.query", "success", context, rows=0 if event is None else 1, number=seq
        )
        await deps.audit.record(conn, asked)
        if event is None:
            return None
        return Found(event, await sealed.of_event(conn, seq), await names_in(conn, [event]))

    found = await ask(deps, context, "/api/audit/events", answer)
    if found is None:
        raise NotFound("The audit log has no event with this number. Check the number.")
    return found


async def names_in(conn: AsyncConnection, events: Sequence[Recorded]) -> dict[str, str]:
    """The names of the accounts that have acted."""
    return await users.names(conn, {e.event.actor_subject for e in events if e.event.actor_subject})
