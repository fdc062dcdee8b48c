"""Searching the audit log: whatever the filter and however short the walks, the pages hold what matches, once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Place, Recorded, Traversal
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext
from pairing_server.store import audit_events
from pairing_server.store.audit_events import Event
from tests.audit.logs import audit_log

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KINDS = (
    *[("ws.connected", "success")] * 6,
    *[("auth.login", "success")] * 4,
    *[("auth.login", "failure")] * 2,
    *[("auth.lockout", "denied")],
    *[("channel.denied", "denied")],
    *[("session.hijack_attempt", "denied")],
)
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.7.1", "203.0.113.9", "2001:db8::1", None)
ACTORS = ("ada", "ada", "ada", "grace", None)
IDS = tuple(UUID(int=number) for number in range(1, 6))
ROWS = 300
# Walks end after a few rows, so that most pages are cut short.
SHORT = Traversal(of_index=7, of_all=11, narrow=3)


def drawn(draw: random.Random) -> Event:
    name, outcome = draw.choice(KINDS)
    caller = RequestContext(
        utcnow(), subject=draw.choice(ACTORS), address=draw.choice(ADDRESSES), kind="user"
    )
    made = audit_log().event(name, outcome, caller.at(NOW), pairing_id=draw.choice((None, *IDS)))
    return replace(made, connection_id=draw.choice((None, *IDS)))


def asked(draw: random.Random, rows: list[Recorded]) -> Filter:
    """A filter of one to four parts."""
    times = sorted(row.recorded_at for row in draw.sample(rows, 2))
    parts = {
        "since": times[0],
        "until": times[1],
        "event": draw.choice(
            ["auth.login", "auth.*", "ws.connected,auth.*", "channel.denied", "msg.invalid"]
        ),
        "actor": draw.choice(["ada", "grace", "nobody"]),
        "address": ip_network(
            draw.choice(["10.0.0.1", "10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"])
        ),
        "pairing": draw.choice(IDS),
        "connection": draw.choice(IDS),
        "outcome": draw.choice(["success", "failure", "denied", "error"]),
        "severity": draw.choice([2, 4, 6, 7]),
    }
    return Filter(**{name: parts[name] for name in draw.sample(list(parts), draw.randint(1, 4))})


def matches(which: Filter, row: Recorded) -> bool:
    """What the filter says, in other words than the store's."""
    event = row.event
    tests: dict[str, Callable[[], bool]] = {
        "since": lambda: row.recorded_at >= which.since,
        "until": lambda: row.recorded_at < which.until,
        "event": lambda: any(
            event.event == name or (name[-1] == "*" and event.event.split(".")[0] == name[:-2])
            for name in which.event.split(",")
        ),
        "actor": lambda: event.actor_subject == which.actor,
        "address": lambda: event.address is not None and ip_address(event.address) in which.address,
        "pairing": lambda: event.pairing_id == which.pairing,
        "connection": lambda: event.connection_id == which.connection,
        "outcome": lambda: event.outcome == which.outcome,
        "severity": lambda: event.severity <= which.severity,
    }
    return all(test() for name, test in tests.items() if getattr(which, name) is not None)


async def gathered(
    conn: AsyncConnection, which: Filter, limit: int, reach: Traversal, *, oldest_first: bool
) -> list[int]:
    """The numbers of what all pages hold."""
    found: list[int] = []
    after: Place | None = None
    for _ in range(10 * ROWS):
        page = await search.page(conn, which, limit, after, replace(reach, oldest_first=oldest_first))
        assert len(page.events) <= limit
        found += [row.seq for row in page.events]
        if page.next is None:
            return found
        assert after is None or ((page.next > after) if oldest_first else (page.next < after)), "it goes on"
        after = page.next
    raise AssertionError("it does not end")


async def filled(conn: AsyncConnection, seed: int) -> tuple[random.Random, list[Recorded]]:
    """Random events in the log, and how they stand there, newest first."""
    draw = random.Random(seed)
    await audit_events.add(conn, [drawn(draw) for _ in range(ROWS)])
    rows = (await search.page(conn, Filter(), ROWS)).events
    assert len(rows) == ROWS
    return draw, rows


@pytest.mark.parametrize("seed", range(4))
async def test_the_pages_of_any_filter_hold_what_matches_once_and_in_order(
    conn: AsyncConnection, seed: int
) -> None:
    draw, rows = await filled(conn, seed)
    for _ in range(25):
        which, limit = asked(draw, rows), draw.randint(1, 9)
        expected = [row.seq for row in rows if matches(which, row)]
        oldest_first = draw.random() < 0.5
        reach = draw.choice([SHORT, Traversal()])
        found = await gathered(conn, which, limit, reach, oldest_first=oldest_first)
        assert found == (expected[::-1] if oldest_first else expected), which


async def test_a_page_that_reaches_its_bound_says_where_to_go_on(conn: AsyncConnection) -> None:
    _, rows = await filled(conn, 1)
    nowhere = Filter(address=ip_network("10.0.0.0/8"), event="auth.lockout", actor="ada")
    page = await search.page(conn, replace(nowhere, event="msg.invalid"), 5, traversal=SHORT)
    of_ada = [row for row in rows if row.event.actor_subject == "ada"]
    assert (page.events, page.next) == ([], of_ada[SHORT.of_index - 1].place)
    page = await search.page(conn, Filter(event="msg.invalid"), 5, traversal=SHORT)
    assert (page.events, page.next) == ([], None)


async def test_every_kind_of_event_is_known(conn: AsyncConnection) -> None:
    await filled(conn, 2)
    assert {(kind.event, kind.outcome) for kind in await search.kinds(conn)} == set(KINDS)
