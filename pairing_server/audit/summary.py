"""What a reviewer asks first of the audit log: how much happened when, who failed, who was where."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.query import Question, actor_of, ask
from pairing_server.audit.store import search
from pairing_server.audit.store import summary as store
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Recorded
from pairing_server.audit.store.summary import Attempt, Bar, Counted, NewAddress
from pairing_server.request_context import RequestContext
from pairing_server.services.deps import Deps
from pairing_server.store import users

SUMMARY_OF = timedelta(hours=24)
TIMELINE_OF = timedelta(days=7)
MOST = 10
# How many bars a timeline has at most, and how long one may be.
BARS = 180
STEPS = (
    *(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30)),
    *(timedelta(hours=hours) for hours in (1, 3, 6, 12)),
    *(timedelta(days=days) for days in (1, 7, 30)),
)
# Who tries a seat, a session or a token that is not his. A reason narrows an event that is mostly harmless.
INTRUDERS: tuple[tuple[str, str | None], ...] = (
    ("session.hijack_attempt", None),
    ("pairing.bruteforce", None),
    ("auth.token_reuse", None),
    ("channel.denied", "full"),
    ("channel.denied", "foreign"),
    ("channel.denied", "not_yours"),
)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Bars of `step` from `since` to `until`; those with nothing in them are left out."""

    since: datetime
    until: datetime
    step: timedelta
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Failed:
    """Of one event: from where, and for whom, it failed or was denied most often."""

    addresses: list[Counted]
    users: list[Counted]


@dataclass(frozen=True, slots=True)
class Summary:
    timeline: Timeline
    logins: Failed
    redemptions: Failed
    lockouts: list[Recorded]
    intruders: list[Attempt]
    new_addresses: list[NewAddress]
    names: dict[str, str]

    @property
    def outcomes(self) -> dict[str, int]:
        """How many events there were of each outcome."""
        found: dict[str, int] = {}
        for bar in self.timeline.bars:
            for outcome, count in bar.outcomes.items():
                found[outcome] = found.get(outcome, 0) + count
        return found


def step_for(span: timedelta) -> timedelta:
    """The shortest step with which the span has no more than BARS."""
    return next((step for step in STEPS if span / step <= BARS), STEPS[-1])


def _within(question: Question, default: timedelta, now: datetime) -> tuple[Filter, datetime, datetime]:
    until = question.which.until or now
    since = question.which.since or until - default
    return replace(question.which, since=since, until=until), since, until


async def _timeline(conn: AsyncConnection, which: Filter, since: datetime, until: datetime) -> Timeline:
    step = step_for(until - since)
    # Bars begin at whole steps, so that an hour is the clock's.
    begin = datetime.fromtimestamp(
        since.timestamp() // step.total_seconds() * step.total_seconds(), since.tzinfo
    )
    return Timeline(begin, until, step, await store.timeline(conn, which, step, begin))


async def timeline(deps: Deps, context: RequestContext, question: Question) -> Timeline:
    """What matches, by steps; of the last seven days unless the question says when.

    Raises Forbidden, ValidationFailed, Unavailable.
    """
    which, since, until = _within(question, TIMELINE_OF, context.now)

    async def answer(conn: AsyncConnection) -> Timeline:
        resolved = await actor_of(conn, replace(question, which=which))
        found = await _timeline(conn, resolved, since, until)
        asked = deps.audit.event(
            "audit.query", "success", context, kind="timeline", rows=len(found.bars), **question.told()
        )
        await deps.audit.record(conn, asked)
        return found

    return await ask(deps, context, "/api/audit/timeline", answer)


async def summary(deps: Deps, context: RequestContext, question: Question) -> Summary:
    """Of the time that the question says, or the last 24 hours. Raises Forbidden, Unavailable."""
    which, since, until = _within(question, SUMMARY_OF, context.now)
    of = Filter(since, until)

    async def failed(conn: AsyncConnection, event: str) -> Failed:
        within = replace(of, event=event)
        return Failed(
            await store.failed_by_address(conn, within, MOST), await store.failed_by_user(conn, within, MOST)
        )

    async def answer(conn: AsyncConnection) -> Summary:
        logins, redemptions = await failed(conn, "auth.login"), await failed(conn, "pairing.redeem")
        intruders = await store.attempts(conn, of, INTRUDERS, MOST)
        fresh = await store.new_addresses(conn, of, MOST)
        bars = await _timeline(conn, which, since, until)
        lockouts = (await search.page(conn, replace(of, event="auth.lockout"), MOST)).events
        subjects = {counted.value for counted in (*logins.users, *redemptions.users)}
        subjects |= {attempt.actor for attempt in intruders if attempt.actor} | {new.actor for new in fresh}
        subjects |= {found.event.actor_subject for found in lockouts if found.event.actor_subject}
        asked = deps.audit.event("audit.query", "success", context, kind="summary", **question.told())
        await deps.audit.record(conn, asked)
        names = await users.names(conn, subjects)
        return Summary(bars, logins, redemptions, lockouts, intruders, fresh, names)

    return await ask(deps, context, "/api/audit/summary", answer)
