"""The audit log at rest: rows are added and read, never changed (a trigger refuses it)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from uuid import UUID

from sqlalchemy import cast, func, select, text, tuple_
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.store.tables import audit_events as t


@dataclass(frozen=True, slots=True)
class Event:
    """One event to be recorded."""

    event_id: UUID
    event: str
    severity: int
    outcome: str
    occurred_at: datetime
    node: str
    app_version: str
    actor_kind: str
    reason: str | None = None
    actor_subject: str | None = None
    auth_method: str | None = None
    address: str | None = None
    request_id: UUID | None = None
    connection_id: UUID | None = None
    pairing_id: UUID | None = None
    count: int = 1
    attrs: Mapping[str, object] = field(default_factory=dict)


_EVENT = tuple(
    t.c[name]
    for name in (
        *("event_id", "event", "severity", "outcome", "occurred_at", "node", "app_version", "actor_kind"),
        *("reason", "actor_subject", "auth_method", "address", "request_id", "connection_id", "pairing_id"),
        *("count", "attrs"),
    )
)


_NAMES = tuple(column.name for column in _EVENT)
_COLUMNS = ", ".join(f'"{name}"' for name in _NAMES)
_TYPED = ", ".join(f'"{column.name}" {column.type.compile(postgresql.dialect())}' for column in _EVENT)  # type: ignore[no-untyped-call]


def adding(rows: str) -> str:
    """The statement that appends the events of `rows`, an SQL expression for what `as_json` gives, in order."""
    return f"INSERT INTO audit_events ({_COLUMNS}) SELECT {_COLUMNS} FROM jsonb_to_recordset({rows}) AS row ({_TYPED})"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event as it stands in the log; (recorded_at, seq) is its place."""

    seq: int
    recorded_at: datetime
    event: Event


@dataclass(frozen=True, slots=True)
class Filter:
    """What to list; None leaves a column alone. `since` is included, `until` is not."""

    since: datetime | None = None
    until: datetime | None = None
    event: str | None = None
    actor: str | None = None
    address: IPv4Network | IPv6Network | None = None
    pairing: UUID | None = None
    outcome: str | None = None


_ADD = text(adding("CAST(:events AS jsonb)"))


def as_json(events: Sequence[Event]) -> str:
    """The events as a JSON list, for `adding`."""
    rows = [{name: getattr(event, name) for name in _NAMES} for event in events]
    return json.dumps(rows, default=str, ensure_ascii=False)


async def add(conn: AsyncConnection, events: Sequence[Event]) -> None:
    """Append the events, in order."""
    await conn.execute(_ADD, {"events": as_json(events)})


async def page(
    conn: AsyncConnection, which: Filter, limit: int, before: tuple[datetime, int] | None = None
) -> list[Recorded]:
    """At most `limit` events, newest first, older than the place `before` (keyset paging)."""
    columns = [func.host(column) if column is t.c.address else column for column in _EVENT]
    statement = select(t.c.seq, t.c.recorded_at, *columns)
    if which.since:
        statement = statement.where(t.c.recorded_at >= which.since)
    if which.until:
        statement = statement.where(t.c.recorded_at < which.until)
    if which.event:
        statement = statement.where(t.c.event == which.event)
    if which.actor:
        statement = statement.where(t.c.actor_subject == which.actor)
    if which.address:
        statement = statement.where(t.c.address.op("<<=")(cast(str(which.address), INET)))
    if which.pairing:
        statement = statement.where(t.c.pairing_id == which.pairing)
    if which.outcome:
        statement = statement.where(t.c.outcome == which.outcome)
    if before:
        statement = statement.where(tuple_(t.c.recorded_at, t.c.seq) < before)
    statement = statement.order_by(t.c.recorded_at.desc(), t.c.seq.desc()).limit(limit)
    found = []
    for seq, recorded_at, *values in await conn.execute(statement):
        event = Event(**{column.name: value for column, value in zip(_EVENT, values, strict=True)})
        found.append(Recorded(seq, recorded_at, event))
    return found
