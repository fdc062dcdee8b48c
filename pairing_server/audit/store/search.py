"""Searching the audit log: pages of what a filter matches, newest first, in a time that does not grow with the log.

A page walks back through rows that an index has in the order of time: those of one pairing, connection, actor, address or
kind of event, the first of these that the filter has, or all rows. The rest of the filter is checked for each row on the
way. After a number of rows (Reach) the walk ends: the page is then shorter than `limit`, even empty, and says where to go
on. So a combination of filters can take many pages, but none of them is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.store.filters import Conditions, Filter, Kind, add, beside, within
from pairing_server.db.tables import EVENT_COLUMNS
from pairing_server.store.audit_events import Event


@dataclass(frozen=True, slots=True)
class Traversal:
    """How a page walks through the log: in which direction, and past how many rows at most.

    The rows of one index are scattered, all rows are beside each other. A network with at most `narrow` rows is sorted.
    """

    oldest_first: bool = False
    of_index: int = 20_000
    of_all: int = 50_000
    narrow: int = 5_000


NEWEST_FIRST = Traversal()
OLDEST_FIRST = Traversal(oldest_first=True)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event as it stands in the log; (recorded_at, seq) is its place."""

    seq: int
    recorded_at: datetime
    event: Event

    @property
    def place(self) -> Place:
        return Place(self.recorded_at, self.seq)


class Place(NamedTuple):
    """A place in the log."""

    recorded_at: datetime
    seq: int

    def values(self) -> dict[str, Any]:
        return {"at": self.recorded_at, "number": self.seq}


@dataclass(frozen=True, slots=True)
class Page:
    """`next` is where to go on; None if there is no more."""

    events: list[Recorded]
    next: Place | None


COLUMNS = ", ".join(
    ["a.seq", "a.recorded_at", *(f"host(a.{c})" if c == "address" else f"a.{c}" for c in EVENT_COLUMNS)]
)
_NEWEST = "ORDER BY a.recorded_at DESC, a.seq DESC"
_OLDEST = "ORDER BY a.recorded_at, a.seq"
# What comes after a place.
_AFTER = {
    _NEWEST: "a.recorded_at <= :at AND (a.recorded_at, a.seq) < (:at, :number)",
    _OLDEST: "a.recorded_at >= :at AND (a.recorded_at, a.seq) > (:at, :number)",
}

# The rows come out of an index in the order of time. Without this, statistics that are a little off make
# PostgreSQL read and sort all of them instead.
_IN_ORDER = text(
    "SELECT set_config(name, value, true) FROM (VALUES ('enable_sort', 'off'), ('enable_bitmapscan', 'off'),"
    " ('enable_seqscan', 'off'), ('max_parallel_workers_per_gather', '0'),"
    " ('plan_cache_mode', 'force_custom_plan')) AS setting (name, value)"
)

# From each kind that there is to the next, through the index.
_KINDS = text(
    """
    WITH RECURSIVE kind AS (
        (SELECT event, outcome, severity FROM audit_events ORDER BY event, outcome, severity LIMIT 1)
        UNION ALL
        SELECT following.* FROM kind CROSS JOIN LATERAL (
            SELECT a.event, a.outcome, a.severity FROM audit_events AS a
            WHERE (a.event, a.outcome, a.severity) > (kind.event, kind.outcome, kind.severity)
            ORDER BY a.event, a.outcome, a.severity LIMIT 1
        ) AS following
    )
    SELECT event, outcome, severity FROM kind
    """
)


async def in_order(conn: AsyncConnection) -> None:
    """Make the transaction's statements take rows from indexes in their order."""
    await conn.execute(_IN_ORDER)


async def kinds(conn: AsyncConnection) -> list[Kind]:
    """Every kind of event that is in the log."""
    return [Kind(*row) for row in await conn.execute(_KINDS)]


async def page(
    conn: AsyncConnection,
    which: Filter,
    limit: int,
    after: Place | None = None,
    traversal: Traversal = NEWEST_FIRST,
) -> Page:
    """At most `limit` events that match, in that order, that come after the place (keyset paging)."""
    order = _OLDEST if traversal.oldest_first else _NEWEST
    conditions = within(which)
    if after is not None:
        conditions.add(_AFTER[order], **after.values())
    await in_order(conn)
    if (few := await _few(conn, which, traversal.narrow)) is not None:
        add(conditions, which, few)
        return await _sorted(conn, conditions, beside(which, frozenset((few,))), limit, order)
    walk = await _walk(conn, which, conditions, order, traversal)
    if walk is None:
        return Page([], None)
    rest = beside(which, walk.asked)
    each = max(walk.reach // walk.arms, limit)
    values = {**walk.conditions.values, **rest.values, "reach": each, "limit": limit}
    rows = await conn.execute(
        text(
            f"SELECT {COLUMNS} FROM {walk.arm} CROSS JOIN LATERAL ("
            f"SELECT * FROM (SELECT * FROM audit_events AS a WHERE {walk.conditions} {walk.order} LIMIT :reach) AS a"
            f" WHERE {rest} LIMIT :limit) AS a {walk.order} LIMIT :limit"
        ),
        values,
    )
    found = [recorded(row) for row in rows]
    end = await _frontier(conn, walk, each) if rest.parts else None
    if end is not None:
        found = [row for row in found if (row.place <= end if traversal.oldest_first else row.place >= end)]
    if len(found) == limit:
        return Page(found, found[-1].place)
    return Page(found, end)


async def _few(conn: AsyncConnection, which: Filter, narrow: int) -> str | None:
    """The part of the filter that leaves so few rows that they are best sorted: no index has them in order."""
    for name in ("pairing", "connection"):
        if getattr(which, name) is not None:
            return name
    if (
        which.actor is None
        and which.address is not None
        and not which.host
        and await _narrow(conn, which, narrow)
    ):
        return "address"
    return None


async def _sorted(
    conn: AsyncConnection, conditions: Conditions, rest: Conditions, limit: int, order: str
) -> Page:
    """The conditions leave few rows."""
    # OFFSET keeps PostgreSQL from looking for them in the order of time instead, through all the log.
    rows = await conn.execute(
        text(
            f"SELECT {COLUMNS} FROM (SELECT * FROM audit_events AS a WHERE {conditions} OFFSET 0) AS a"
            f" WHERE {rest} {order} LIMIT :limit"
        ),
        {**conditions.values, **rest.values, "limit": limit},
    )
    found = [recorded(row) for row in rows]
    return Page(found, found[-1].place if len(found) == limit else None)


async def one(conn: AsyncConnection, seq: int) -> Recorded | None:
    """The event with that number."""
    row = (
        await conn.execute(text(f"SELECT {COLUMNS} FROM audit_events AS a WHERE a.seq = :seq"), {"seq": seq})
    ).one_or_none()
    return None if row is None else recorded(row)


def recorded(row: Sequence[Any]) -> Recorded:
    """The event of a row of COLUMNS."""
    seq, recorded_at, *values = row
    return Recorded(seq, recorded_at, Event(**dict(zip(EVENT_COLUMNS, values, strict=True))))


@dataclass(frozen=True, slots=True)
class _Walk:
    """The rows to walk through: those that meet the conditions, for each row of `arm`.

    `asked`: the parts of the filter that all of them meet.
    """

    conditions: Conditions
    order: str
    asked: frozenset[str]
    reach: int
    arm: str = "(VALUES (1)) AS arm"
    arms: int = 1


async def _walk(
    conn: AsyncConnection, which: Filter, conditions: Conditions, order: str, traversal: Traversal
) -> _Walk | None:
    """None: nothing can match."""
    for name in ("actor", "address"):
        if getattr(which, name) is not None and (name == "actor" or which.host):
            add(conditions, which, name)
            return _Walk(conditions, order, frozenset((name,)), traversal.of_index)
    if not which.of_kinds:
        return _Walk(conditions, order, frozenset(), traversal.of_all)
    matching = [kind for kind in await kinds(conn) if which.has(kind)]
    if not matching:
        return None
    conditions.add(
        "a.event = arm.event AND a.outcome = arm.outcome AND a.severity = arm.severity",
        events=[kind.event for kind in matching],
        outcomes=[kind.outcome for kind in matching],
        severities=[kind.severity for kind in matching],
    )
    arm = (
        "unnest(CAST(:events AS text[]), CAST(:outcomes AS text[]), CAST(:severities AS smallint[]))"
        " AS arm (event, outcome, severity)"
    )
    return _Walk(
        conditions, order, frozenset(("event", "outcome", "severity")), traversal.of_index, arm, len(matching)
    )


async def _frontier(conn: AsyncConnection, walk: _Walk, reach: int) -> Place | None:
    """How far the walk has seen everything; None: to the end."""
    # Of several arms, the one that has come least far says it.
    row = (
        await conn.execute(
            text(
                f"SELECT a.recorded_at, a.seq FROM {walk.arm} CROSS JOIN LATERAL ("
                f"SELECT a.recorded_at, a.seq FROM audit_events AS a WHERE {walk.conditions} {walk.order}"
                f" OFFSET :passed LIMIT 1) AS a {walk.order} LIMIT 1"
            ),
            {**walk.conditions.values, "passed": reach - 1},
        )
    ).one_or_none()
    return None if row is None else Place(*row)


async def _narrow(conn: AsyncConnection, which: Filter, most: int) -> bool:
    """Whether few rows are from the network."""
    conditions = within(which)
    add(conditions, which, "address")
    counted = await conn.execute(
        text(
            f"SELECT count(*) FROM (SELECT FROM audit_events AS a WHERE {conditions} LIMIT :enough) AS counted"
        ),
        {**conditions.values, "enough": most + 1},
    )
    return bool(counted.scalar_one() <= most)
