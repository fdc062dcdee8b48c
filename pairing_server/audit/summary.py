"""What a reviewer asks first of the audit log: how much happened when, who failed, who was where."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.store import search
from pairing_server.audit.store import summary as store
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Recorded
from pairing_server.audit.store.summary import Attempt, Bar, Counted, NewAddress
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
# Attempts on the place, session or token of another user. A reason narrows an event that is mostly harmless.
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
class FailureCounts:
    """Of one event: from where, and for whom, it failed or was denied most often."""

    addresses: list[Counted]
    users: list[Counted]


@dataclass(frozen=True, slots=True)
class Summary:
    timeline: Timeline
    logins: FailureCounts
    redemptions: FailureCounts
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


def within(which: Filter, default: timedelta, now: datetime) -> tuple[Filter, datetime, datetime]:
    """The filter with both ends of its time, and these: until now and as long as `default`, unless it has them."""
    until = which.until or now
    since = which.since or until - default
    return replace(which, since=since, until=until), since, until


async def timeline(conn: AsyncConnection, which: Filter, since: datetime, until: datetime) -> Timeline:
    """How much matches, by steps."""
    step = step_for(until - since)
    # Bars begin at whole steps, so that an hour is the clock's.
    begin = datetime.fromtimestamp(
        since.timestamp() // step.total_seconds() * step.total_seconds(), since.tzinfo
    )
    return Timeline(begin, until, step, await store.timeline(conn, which, step, begin))


async def summary(conn: AsyncConnection, which: Filter, since: datetime, until: datetime) -> Summary:
    """Of that time, which is the filter's."""

    async def failed(event: str) -> FailureCounts:
        of_event = replace(which, event=event)
        return FailureCounts(
            await store.failed_by_address(conn, of_event, MOST),
            await store.failed_by_user(conn, of_event, MOST),
        )

    logins, redemptions = await failed("auth.login"), await failed("pairing.redeem")
    intruders = await store.attempts(conn, which, INTRUDERS, MOST)
    fresh = await store.new_addresses(conn, which, MOST)
    lockouts = (await search.page(conn, replace(which, event="auth.lockout"), MOST)).events
    subjects = {counted.value for counted in (*logins.users, *redemptions.users)}
    subjects |= {attempt.actor for attempt in intruders if attempt.actor} | {new.actor for new in fresh}
    subjects |= {found.event.actor_subject for found in lockouts if found.event.actor_subject}
    bars, names = await timeline(conn, which, since, until), await users.names(conn, subjects)
    return Summary(bars, logins, redemptions, lockouts, intruders, fresh, names)
