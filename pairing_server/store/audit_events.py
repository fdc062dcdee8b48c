"""The audit log at rest: rows are added, never changed (a trigger refuses it). Reading: audit/store/search.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, bindparam, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import EVENT_COLUMNS
from pairing_server.db.tables import audit_events as t


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


_COLUMNS = ", ".join(f'"{name}"' for name in EVENT_COLUMNS)
_TYPED = ", ".join(f'"{name}" {t.c[name].type.compile(postgresql.dialect())}' for name in EVENT_COLUMNS)  # type: ignore[no-untyped-call]


def adding(rows: str) -> str:
    """The statement that appends the events of `rows`, an SQL expression for what `as_json` gives, in order."""
    return f"INSERT INTO audit_events ({_COLUMNS}) SELECT {_COLUMNS} FROM jsonb_to_recordset({rows}) AS row ({_TYPED})"


_ADD = text(adding("CAST(:events AS jsonb)"))


def as_json(events: Sequence[Event]) -> str:
    """The events as a JSON list, for `adding`."""
    rows = [{name: getattr(event, name) for name in EVENT_COLUMNS} for event in events]
    return json.dumps(rows, default=str, ensure_ascii=False)


async def add(conn: AsyncConnection, events: Sequence[Event]) -> None:
    """Append the events, in order."""
    await conn.execute(_ADD, {"events": as_json(events)})


async def add_lines(conn: AsyncConnection, lines: Sequence[bytes]) -> None:
    """Append events that are JSON already, one a line, in order."""
    await conn.execute(_ADD, {"events": f"[{b','.join(lines).decode()}]"})


_KNOWN = text(
    """SELECT event_id::text FROM audit_events
    WHERE recorded_at >= :since AND recorded_at < coalesce(:until, CAST('infinity' AS timestamptz))
      AND event_id = ANY (CAST(CAST(:ids AS text[]) AS uuid[]))"""
).bindparams(bindparam("until", type_=DateTime(timezone=True)))


async def known(
    conn: AsyncConnection, ids: Sequence[str], since: datetime, until: datetime | None
) -> set[str]:
    """Which of these events were recorded from `since` to before `until`."""
    found = await conn.execute(_KNOWN, {"ids": list(ids), "since": since, "until": until})
    return set(found.scalars())
