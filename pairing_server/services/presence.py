"""Which channels' members have come or gone, on its way to the database.

Whoever closes a channel's connection waits for nothing, and a thousand that come or go at once need few statements: what
comes up while one is under way goes together with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from pairing_server.services.deps import Deps
from pairing_server.services.expiry import note_presence


class Presence:
    """What is to be noted of this process's channels. The timer notes all of them every half minute in any case."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, bool] = {}
        self._under_way: dict[UUID, bool] = {}
        self._writing = False

    def note(self, pairing_id: UUID, *, active: bool) -> bool:
        """Both members are here ("active"), or not any more. True if nobody is writing: then somebody must."""
        self._waiting[pairing_id] = active
        return not self._writing

    def known_active(self, pairing_id: UUID) -> None:
        """The database has just been told that both members are here, and what waits is older. What is under way may
        come after that and undo it: then it is said once more."""
        if self._under_way.get(pairing_id, True):
            self._waiting.pop(pairing_id, None)
        else:
            self._waiting[pairing_id] = True

    async def write(self, deps: Deps, now: Callable[[], datetime]) -> None:
        """Write until nothing waits. Raises Unavailable; what was just being written is then left to the timer."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._waiting:
                self._under_way, self._waiting = self._waiting, {}
                active = [pairing_id for pairing_id, both in self._under_way.items() if both]
                waiting = [pairing_id for pairing_id, both in self._under_way.items() if not both]
                await note_presence(deps, active, waiting, now())
        finally:
            self._under_way = {}
            self._writing = False
