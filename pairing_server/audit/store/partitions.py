"""The audit log's partitions: one a month, made ahead, dropped when they are old. What is in them: store/audit_events.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

AHEAD = 2

_MAKE = text("SELECT audit_make_partitions(:ahead)")


async def make(conn: AsyncConnection) -> int:
    """Make the partitions of this month and the next ones that are missing. How many."""
    return int((await conn.execute(_MAKE, {"ahead": AHEAD})).scalar_one())


@dataclass(frozen=True, slots=True)
class Partition:
    """From `begins` (None: from the beginning) to before `ends`."""

    name: str
    begins: datetime | None
    ends: datetime


async def every(conn: AsyncConnection) -> list[Partition]:
    """The partitions, oldest first."""
    return [Partition(*row) for row in await conn.execute(text("SELECT * FROM audit_partitions()"))]


async def is_drop_recorded(conn: AsyncConnection, begins: datetime) -> bool:
    """Whether the log has recorded that everything before then was dropped."""
    statement = """SELECT EXISTS (SELECT FROM audit_events WHERE event = 'audit.retention'
        AND attrs->>'ends' = to_char(CAST(:begins AS timestamptz) AT TIME ZONE 'UTC', 'YYYYMM'))"""
    return bool((await conn.execute(text(statement), {"begins": begins})).scalar_one())


async def drop(conn: AsyncConnection, name: str, days: int, node: str, app_version: str) -> int:
    """Drop the oldest partition and record that. How many rows it had. Raises DBAPIError if it must not be dropped."""
    statement = text("SELECT audit_drop_partition(:name, :days, :node, :app_version)")
    values = {"name": name, "days": days, "node": node, "app_version": app_version}
    return int((await conn.execute(statement, values)).scalar_one())
