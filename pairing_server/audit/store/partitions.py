"""The audit log's partitions: one a month, made ahead, dropped when they are old. What is in them: store/audit_events.py. Which
there are: catalogue.py."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

AHEAD = 2

_MAKE = text("SELECT audit_make_partitions(:ahead)")


async def make(conn: AsyncConnection) -> int:
    """Make the partitions of this month and the next ones that are missing. How many."""
    return int((await conn.execute(_MAKE, {"ahead": AHEAD})).scalar_one())


async def drop(conn: AsyncConnection, name: str, days: int, node: str, app_version: str) -> int:
    """Drop the oldest partition and record that. How many rows it had. Raises DBAPIError if it must not be dropped."""
    statement = text("SELECT audit_drop_partition(:name, :days, :node, :app_version)")
    values = {"name": name, "days": days, "node": node, "app_version": app_version}
    return int((await conn.execute(statement, values)).scalar_one())
