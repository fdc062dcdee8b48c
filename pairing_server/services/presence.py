"""Which channels have both members connected, on its way to the database.

A connection that closes waits for nothing, and a thousand that come or go at once need few statements: what changes while
one statement is under way goes together with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from pairing_server.db.database import Database
from pairing_server.store import membership

# Seconds between two notes of all channels. A pairing that has not been noted for much longer has no member connected.
TOUCH = 30


class Presence:
    """The changes of this process's channels. The scheduler notes all channels every half minute in any case."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[UUID, bool] = {}
        self._under_way: dict[UUID, bool] = {}
        self._writing = False

    def note(self, pairing_id: UUID, *, active: bool) -> bool:
        """Both members are connected ("active"), or not any more. True if `write` has to be called."""
        self._waiting[pairing_id] = active
        return not self._writing

    def known_active(self, pairing_id: UUID) -> None:
        """The database has just recorded that both members are connected, so what waits is older. What is under way may
        be committed later and undo it: then it is written once more."""
        if self._under_way.get(pairing_id, True):
            self._waiting.pop(pairing_id, None)
        else:
            self._waiting[pairing_id] = True

    async def write(self, now: Callable[[], datetime]) -> None:
        """Write until nothing waits. Raises Unavailable; what was being written is then left to the scheduler."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._waiting:
                self._under_way, self._waiting = self._waiting, {}
                await membership.set_present(self._database.once, self._under_way, now())
        finally:
            self._under_way = {}
            self._writing = False

    async def note_all(self, active: Sequence[UUID], waiting: Sequence[UUID], now: datetime) -> None:
        """Note which channels have both members connected here, and which only one or none."""
        met = {**dict.fromkeys(waiting, False), **dict.fromkeys(active, True)}
        await membership.set_present(self._database.once, met, now)
