"""Which devices are connected to which channel, on its way to the database.

A connection that closes waits for nothing, and a thousand that come or go at once need few statements: what changes while
one statement is under way goes together with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from uuid import UUID

from pairing_server.db.database import Database
from pairing_server.relay.hub import Hub
from pairing_server.store import membership
from pairing_server.store.membership import Present

# Seconds between two notes of all channels. A pairing that has not been noted for much longer has no member connected.
TOUCH = 30


class Presence:
    """The changes of this process's channels. The scheduler notes all channels every half minute in any case."""

    def __init__(self, database: Database, hub: Hub, node: UUID) -> None:
        self._database = database
        self._hub = hub
        self._node = node
        self._waiting: set[UUID] = set()
        self._under_way: set[UUID] = set()
        self._writing = False

    def note(self, pairing_id: UUID) -> bool:
        """Which of its devices are connected has changed. True if `write` has to be called."""
        self._waiting.add(pairing_id)
        return not self._writing

    def known_joined(self, pairing_id: UUID, *, both: bool) -> None:
        """The database has just recorded that a device has joined. What is under way may be committed later and undo it:
        then it is written once more. `both`: it has recorded that both have, so nothing else is to be written."""
        if pairing_id in self._under_way:
            self._waiting.add(pairing_id)
        elif both:
            self._waiting.discard(pairing_id)

    async def write(self, now: Callable[[], datetime]) -> None:
        """Write until nothing waits. Raises Unavailable; what was being written then waits for the scheduler."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._waiting:
                self._under_way, self._waiting = self._waiting, set()
                await self._set_present(self._under_way, now())
                self._under_way = set()
        finally:
            self._waiting |= self._under_way
            self._under_way = set()
            self._writing = False

    async def note_all(self, now: datetime) -> list[UUID]:
        """Note what waits, and all channels with a member here. Those whose pairings have ended or are another server's."""
        await self.write(lambda: now)
        return await self._set_present(self._hub.connected_channels(), now)

    async def _set_present(self, ids: Collection[UUID], now: datetime) -> list[UUID]:
        is_present = self._hub.is_present
        present = {each: Present(is_present(each, "desktop"), is_present(each, "mobile")) for each in ids}
        for each in present:
            # Before the answer: it is not known whether what is under way is written already.
            if (channel := self._hub.channels.get(each)) is not None:
                channel.seen_at = now
        return await membership.set_present(self._database.once, self._node, present, now)
