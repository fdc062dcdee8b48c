"""Which channels' members have come or gone, on its way to the database.

Whoever closes a channel's connection waits for nothing, and a thousand that come or go at once need few statements: what
comes up while one is under way goes together with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from pairing_server.services.deps import Deps
from pairing_server.services.lifetimes import note_presence


class Presence:
    """What is to be noted of this process's channels. The timer notes all of them every half minute in any case."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, bool] = {}
        self._writing = False

    def note(self, pairing_id: UUID, *, active: bool) -> bool:
        """Both members are here ("active"), or not any more. True if nobody is writing: then somebody must."""
        self._waiting[pairing_id] = active
        return not self._writing

    def forget(self, pairing_id: UUID) -> None:
        """The database knows something newer of it."""
        self._waiting.pop(pairing_id, None)

    async def write(self, deps: Deps, now: Callable[[], datetime]) -> None:
        """Write until nothing waits. Raises Unavailable; what was just being written is then left to the timer."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._waiting:
                noted, self._waiting = self._waiting, {}
                active = [pairing_id for pairing_id, both in noted.items() if both]
                waiting = [pairing_id for pairing_id, both in noted.items() if not both]
                await note_presence(deps, active, waiting, now())
        finally:
            self._writing = False
