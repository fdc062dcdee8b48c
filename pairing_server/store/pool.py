"""Connections that are kept open: who may have one, who waits for one, and what becomes of a broken one.

A connection here is a `Lane`: for SQLAlchemy's statements, and for those few that go to the driver directly. Taking
one costs no round trip; whether it still works shows with the BEGIN that has to be sent anyway (store/database.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# Seconds that a lane has to say goodbye.
LEAVE_TIMEOUT = 2


@dataclass(eq=False, slots=True)
class Lane:
    """One connection, in two views. `conn` sends no BEGIN of its own. `opened`: monotonic seconds."""

    conn: AsyncConnection
    driver: asyncpg.Connection
    opened: float

    @property
    def dead(self) -> bool:
        """Whether it is known not to work; False promises nothing."""
        return self.driver.is_closed() or self.conn.invalidated


class Pool:
    """At most `size` lanes, opened when they are wanted; the one used last is taken first."""

    def __init__(self, engine: AsyncEngine, *, size: int, patience: float, max_age: float) -> None:
        """`engine` must not pool. `patience`: seconds somebody waits; `max_age`: seconds a lane is used."""
        self._engine = engine
        self._size = size
        self._patience = patience
        self._max_age = max_age
        self._open = 0
        self._free: deque[Lane] = deque()
        # Each gets a lane, or None: there is room to open one.
        self._waiting: deque[asyncio.Future[Lane | None]] = deque()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def warm(self, count: int) -> None:
        """Open lanes until `count` are open, so that the first requests need not wait for them."""
        wanted = range(count - self._open)
        self._open += len(wanted)
        for lane in await asyncio.gather(*(self._opened() for _ in wanted), return_exceptions=True):
            if isinstance(lane, Lane):
                self.give_back(lane)

    async def take(self) -> Lane:
        """A lane, for `give_back`. Raises TimeoutError after the patience, and whatever connecting raises."""
        while self._free:
            lane = self._free.pop()
            if self._usable(lane):
                return lane
            self.drop(lane)
        if self._open < self._size:
            self._open += 1
            return await self._opened()
        async with asyncio.timeout(self._patience):
            lane_or_room = await self._turn()
        return lane_or_room or await self._opened()

    def give_back(self, lane: Lane) -> None:
        """The lane is in no transaction; whoever has waited longest gets it."""
        if not self._usable(lane):
            self.drop(lane)
        elif not self._hand(lane):
            self._free.append(lane)

    def drop(self, lane: Lane) -> None:
        """The lane is not to be used again: it is closed in the background."""
        task = asyncio.ensure_future(_leave(lane))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        self._room()

    def drop_free(self) -> None:
        """Let go of the lanes nobody has: when one is found broken, the others most likely are."""
        while self._free:
            self.drop(self._free.pop())

    async def close(self) -> None:
        """Close all lanes; those that are in use, when they come back."""
        self._closed = True
        self.drop_free()
        while self._leaving:
            await asyncio.wait(self._leaving)

    def _usable(self, lane: Lane) -> bool:
        young = asyncio.get_running_loop().time() - lane.opened < self._max_age
        return young and not lane.dead and not self._closed

    async def _opened(self) -> Lane:
        """A new lane in the room that was counted for it."""
        try:
            return await _connect(self._engine)
        except BaseException:
            self._room()
            raise

    async def _turn(self) -> Lane | None:
        turn: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except BaseException:
            # Its turn may have come in the moment it gave up.
            if turn.done() and not turn.cancelled():
                lane = turn.result()
                if lane is None:
                    self._room()
                else:
                    self.give_back(lane)
            raise

    def _room(self) -> None:
        """One lane less: whoever has waited longest may open another."""
        if not self._hand(None):
            self._open -= 1

    def _hand(self, lane: Lane | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(lane)
                return True
        return False


async def _connect(engine: AsyncEngine) -> Lane:
    conn = await engine.connect()
    try:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        driver = (await conn.get_raw_connection()).driver_connection
    except BaseException:
        await conn.close()
        raise
    if driver is None:
        raise RuntimeError("the connection has no driver")
    return Lane(conn, driver, asyncio.get_running_loop().time())


async def _leave(lane: Lane) -> None:
    """Close it, whatever state it is in. What goes wrong here changes nothing for anybody."""
    with suppress(Exception):
        await lane.driver.close(timeout=LEAVE_TIMEOUT)
    with suppress(Exception):
        await lane.conn.invalidate()
    with suppress(Exception):
        await lane.conn.close()
