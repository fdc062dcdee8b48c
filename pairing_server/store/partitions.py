"""The audit log's partitions: one a month, made ahead, dropped when they are old. What is in them: store/audit.py."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

AHEAD = 2

_MAKE = text("SELECT audit_make_partitions(:ahead)")


async def make(conn: AsyncConnection) -> int:
    """Make the partitions of this month and the next ones that are missing. How many."""
    return int((await conn.execute(_MAKE, {"ahead": AHEAD})).scalar_one())
