"""One connection to PostgreSQL while somebody has it, and how it is given back after an error."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.store.failures import breaks_off


@dataclass(frozen=True, slots=True)
class Lane:
    """One connection, in two views: for SQLAlchemy's statements, and for those few that go to the driver directly.

    `conn` sends no BEGIN of its own, so that both are in the same transaction.
    """

    conn: AsyncConnection
    driver: asyncpg.Connection

    @property
    def dead(self) -> bool:
        """Whether it is known not to work; False promises nothing."""
        return self.driver.is_closed() or self.conn.invalidated


async def undo(lane: Lane, error: BaseException, time: asyncio.Timeout) -> bool:
    """Give the lane back: its transaction, if it is in one, has not happened. Whether the connection was lost."""
    lost = lane.dead or breaks_off(error)
    clean = False
    try:
        if not lost and lane.driver.is_in_transaction():
            await lane.driver.execute("ROLLBACK")
        clean = not lost
    except Exception:
        lost = True
    finally:
        # Nobody is there to say goodbye to, or there is no time for it, which would be two seconds.
        if isinstance(error, OSError) or time.expired():
            lane.driver.terminate()
        if not clean:
            await lane.conn.invalidate()
        await lane.conn.close()
    return lost
