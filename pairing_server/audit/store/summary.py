"""Counts over the audit log. The caller bounds the time; counts are sums of the column `count`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.store.filters import Filter, matching, within

# What is counted.
_ADDRESS = "host(a.address)"
_ACTOR = "a.actor_subject"
# The user of a failed login: the account that was tried, where there is one.
_TARGET = "coalesce(a.attrs->>'target', a.actor_subject)"
# Events that show where a user is: they need a password or a token.
_SEEN = ("auth.login", "ws.connected")
PAIRS = 1_000
HISTORY = 1_000


@dataclass(frozen=True, slots=True)
class Bar:
    """How many events of each outcome there were from `at` on, until the next."""

    at: datetime
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """A value, how often it was counted, and when it was seen last."""

    value: str
    count: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt on what belongs to another user."""

    event: str
    reason: str | None
    actor: str | None
    address: str | None
    count: int
    last: datetime


@dataclass(frozen=True, slots=True)
class NewAddress:
    """An address that a known user has not had before."""

    actor: str
    address: str
    first: datetime
    count: int


async def timeline(conn: AsyncConnection, which: Filter, step: timedelta, since: datetime) -> list[Bar]:
    """What matches, by steps of that length that are counted from `since`. Empty ones are left out."""
    conditions = matching(which)
    statement = text(
        f"SELECT date_bin(:step, a.recorded_at, :origin), a.outcome, sum(a.count) FROM audit_events AS a"
        f" WHERE {conditions} GROUP BY 1, 2 ORDER BY 1"
    )
    bars: dict[datetime, Bar] = {}
    values = {**conditions.values, "step": step, "origin": since}
    for at, outcome, count in await conn.execute(statement, values):
        bars.setdefault(at, Bar(at, {})).outcomes[outcome] = count
    return list(bars.values())


async def _most(
    conn: AsyncConnection,
    what: str,
    which: Filter,
    limit: int,
    refused: Sequence[str] = ("failure", "denied"),
) -> list[Counted]:
    conditions = within(which)
    conditions.add(
        "a.event = :name AND a.outcome = ANY(CAST(:refused AS text[]))",
        name=which.event,
        refused=list(refused),
    )
    statement = text(
        f"SELECT {what}, sum(a.count), max(a.recorded_at) FROM audit_events AS a"
        f" WHERE {conditions} AND {what} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 3 DESC LIMIT :limit"
    )
    return [Counted(*row) for row in await conn.execute(statement, {**conditions.values, "limit": limit})]


async def failed_by_address(conn: AsyncConnection, which: Filter, limit: int) -> list[Counted]:
    """The addresses from which the event failed or was denied most often."""
    return await _most(conn, _ADDRESS, which, limit)


async def failed_by_user(conn: AsyncConnection, which: Filter, limit: int) -> list[Counted]:
    """The subjects for whom it did."""
    return await _most(conn, _TARGET if which.event == "auth.login" else _ACTOR, which, limit)


async def attempts(
    conn: AsyncConnection, which: Filter, kinds: Sequence[tuple[str, str | None]], limit: int
) -> list[Attempt]:
    """These kinds of event (with one reason, or any) by who tried and from where, the latest first. Not `doctor`'s."""
    conditions = within(which)
    conditions.add("a.attrs ->> 'trial' IS NULL")
    conditions.add(
        "EXISTS (SELECT FROM unnest(CAST(:names AS text[]), CAST(:reasons AS text[])) AS kind (name, reason)"
        " WHERE a.event = kind.name AND (kind.reason IS NULL OR a.reason = kind.reason))"
        " AND a.event = ANY(CAST(:names AS text[]))",
        names=[name for name, _ in kinds],
        reasons=[reason for _, reason in kinds],
    )
    statement = text(
        f"SELECT a.event, a.reason, {_ACTOR}, {_ADDRESS}, sum(a.count), max(a.recorded_at)"
        f" FROM audit_events AS a WHERE {conditions} GROUP BY 1, 2, 3, 4 ORDER BY 6 DESC LIMIT :limit"
    )
    return [Attempt(*row) for row in await conn.execute(statement, {**conditions.values, "limit": limit})]


async def new_addresses(conn: AsyncConnection, which: Filter, limit: int) -> list[NewAddress]:
    """Addresses that are new for users who were seen before `which.since`.

    The latest PAIRS pairs of user and address are looked up, each in the user's HISTORY events before.
    """
    conditions = within(which)
    conditions.add("a.event = ANY(CAST(:seen AS text[])) AND a.outcome = 'success'", seen=list(_SEEN))
    statement = text(
        f"""
        WITH seen AS MATERIALIZED (
            SELECT {_ACTOR} AS actor, a.address, min(a.recorded_at) AS first, sum(a.count) AS times
            FROM audit_events AS a
            WHERE {conditions} AND a.actor_subject IS NOT NULL AND a.address IS NOT NULL
            GROUP BY 1, 2 ORDER BY 3 DESC LIMIT {PAIRS}
        )
        SELECT seen.actor, host(seen.address), seen.first, seen.times FROM seen
        CROSS JOIN LATERAL (
            SELECT count(*) AS events, count(*) FILTER (WHERE a.address = seen.address) AS there FROM (
                SELECT a.address FROM audit_events AS a
                WHERE a.actor_subject = seen.actor AND a.recorded_at < :since
                ORDER BY a.recorded_at DESC, a.seq DESC LIMIT {HISTORY}
            ) AS a
        ) AS before
        WHERE before.events > 0 AND before.there = 0 ORDER BY seen.first DESC LIMIT :limit
        """
    )
    values: dict[str, Any] = {**conditions.values, "limit": limit}
    return [NewAddress(*row) for row in await conn.execute(statement, values)]
