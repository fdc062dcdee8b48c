"""Connections for statements that go to the driver directly.

They are for requests that each device makes: one round trip, without SQLAlchemy's share of the time. See `Database.once` and
`Database.direct`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.errors import breaks_off

# Sends a statement with its values and returns the first row. `Database.once` also takes `again`: what to send the
# second time, if the connection is lost.
Fetch = Callable[..., Awaitable[asyncpg.Record | None]]


@dataclass(frozen=True, slots=True)
class RawConnection:
    """One connection, in two views: for SQLAlchemy's statements, and for those few that go to the driver directly.

    `conn` sends no BEGIN of its own, so that both are in the same transaction.
    """

    conn: AsyncConnection
    driver: asyncpg.Connection

    @property
    def dead(self) -> bool:
        """Whether it is known to be lost; False promises nothing."""
        return self.driver.is_closed() or self.conn.invalidated


async def undo(direct: RawConnection, error: BaseException, time: asyncio.Timeout) -> bool:
    """Give the connection back: its transaction, if it is in one, has not happened. Whether the connection was lost."""
    lost = direct.dead or breaks_off(error)
    clean = False
    try:
        if not lost and direct.driver.is_in_transaction():
            await direct.driver.execute("ROLLBACK")
        clean = not lost
    except Exception:
        lost = True
    finally:
        # The server does not answer, or there is no time for the two seconds that a proper end may take.
        if isinstance(error, OSError) or time.expired():
            direct.driver.terminate()
        if not clean:
            await direct.conn.invalidate()
        await direct.conn.close()
    return lost
