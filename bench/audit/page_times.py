"""How long a page of the audit log takes with each filter: the first, and the thousandth."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import UUID

import asyncpg

from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Place
from pairing_server.db.database import Database, PoolLimits

LIMIT = 100
PAGES = 1_000
# How often the first page is timed, and how many pages up to the last.
SAMPLES = 20


@dataclass(slots=True)
class Times:
    """Of one filter, in milliseconds. `pages`: how many were read, PAGES at most; `found`: the rows on them."""

    name: str
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    slowest: float = 0.0
    pages: int = 0
    found: int = 0


def p95(times: list[float]) -> float:
    return sorted(times)[max(0, round(len(times) * 0.95) - 1)]


async def filters(url: str) -> dict[str, Filter]:
    """Every filter alone, and combinations. All find events, but for those named for finding none."""
    conn = await asyncpg.connect(url)
    try:
        user = await _one(
            conn, "actor_kind = 'device' AND actor_subject NOT LIKE 'service-%'", "actor_subject"
        )
        pairing = await _one(conn, "pairing_id IS NOT NULL", "pairing_id")
        connection = await _one(conn, "connection_id IS NOT NULL", "connection_id")
        address = await _one(conn, "actor_kind = 'device' AND address <> '192.0.2.10'", "host(address)")
    finally:
        await conn.close()
    now = datetime.now(UTC)
    month = Filter(since=now - timedelta(days=100), until=now - timedelta(days=70))
    busy, attackers, office = "service-3", ip_network("198.51.0.0/16"), ip_network("10.20.0.0/16")
    return {
        "none": Filter(),
        "time: a month": month,
        "event: pairing.redeem": Filter(event="pairing.redeem"),
        "event: auth.*": Filter(event="auth.*"),
        "event: three of them": Filter(event="auth.lockout,session.hijack_attempt,limit.rate"),
        "actor: a person": Filter(actor=user),
        "actor: a program": Filter(actor=busy),
        "address: one": Filter(address=ip_network(address)),
        "address: /24": Filter(address=ip_network("10.20.30.0/24")),
        "address: /16": Filter(address=office),
        "address: /16 of attackers": Filter(address=attackers),
        "address: /8": Filter(address=ip_network("10.0.0.0/8")),
        "address: /16, none": Filter(address=ip_network("172.16.0.0/16")),
        "pairing": Filter(pairing=UUID(pairing)),
        "connection": Filter(connection=UUID(connection)),
        "outcome: failure": Filter(outcome="failure"),
        "outcome: success": Filter(outcome="success"),
        "outcome: error": Filter(outcome="error"),
        "severity: warning": Filter(severity=4),
        "severity: critical": Filter(severity=2),
        "event + outcome": Filter(event="auth.login", outcome="failure"),
        "event + outcome, none": Filter(event="channel.joined", outcome="failure"),
        "event + severity, none": Filter(event="channel.*", severity=3),
        "event + /16": Filter(event="auth.login", address=office),
        "event + outcome + attackers": Filter(event="auth.login", outcome="failure", address=attackers),
        "severity + attackers": Filter(severity=4, address=attackers),
        "outcome + /24": Filter(outcome="success", address=ip_network("10.20.30.0/24")),
        "program + outcome": Filter(actor=busy, outcome="failure"),
        "program + event, none": Filter(actor=busy, event="auth.lockout"),
        "program + address, none": Filter(actor=busy, address=attackers),
        "month + event + /16 + outcome": replace(month, event="auth.*", address=office, outcome="failure"),
    }


async def _one(conn: asyncpg.Connection, where: str, column: str) -> str:
    return str(
        await conn.fetchval(
            f"SELECT {column} FROM audit_events WHERE {where} AND recorded_at > now() - interval '20 days' LIMIT 1"
        )
    )


async def measure(url: str, name: str, which: Filter) -> Times:
    """Time that filter's first page and its way to the thousandth."""
    database = Database(url, limits=PoolLimits(statement_timeout=10))
    times = Times(name)
    try:
        for _ in range(SAMPLES):
            took, _, _ = await _page(database, which, None)
            times.first.append(took)
        place: Place | None = None
        while times.pages < PAGES:
            took, found, place = await _page(database, which, place)
            times.pages += 1
            times.found += found
            times.slowest = max(times.slowest, took)
            times.last = [*times.last[1 - SAMPLES :], took]
            if place is None:
                break
    finally:
        await database.close()
    return times


async def _page(database: Database, which: Filter, after: Place | None) -> tuple[float, int, Place | None]:
    began = time.perf_counter()
    async with database.transaction() as conn:
        page = await search.page(conn, which, LIMIT, after)
    return 1000 * (time.perf_counter() - began), len(page.events), page.next


def table(measured: list[Times]) -> str:
    """The figures in Markdown."""
    lines = [
        f"| filter | pages of {LIMIT} | events | first page, p95 | page {PAGES:,} or the last, p95 | slowest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for times in measured:
        pages = f"{times.pages:,}" + ("+" if times.pages == PAGES else "")
        lines.append(
            f"| {times.name} | {pages} | {times.found:,} | {p95(times.first):.0f} ms | {p95(times.last):.0f} ms"
            f" | {times.slowest:.0f} ms |"
        )
    return "\n".join(lines)
