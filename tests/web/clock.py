"""The node's time, which stands still until a test puts it forward: however slow the machine is, it counts for nothing."""

from __future__ import annotations

import asyncio
from datetime import datetime

from pairing_server.clock import utcnow
from tests.devices import Answer, Site


def waits_for(refused: Answer, seconds: float, began: datetime) -> bool:
    """Whether it says to wait for what is left of so many seconds, which began after that, however long ago it was."""
    left = seconds - (utcnow() - began).total_seconds()
    return left <= int(refused.headers["Retry-After"]) <= seconds + 1


class Clock:
    """What the connections opened from now on count their limits by, in monotonic seconds."""

    def __init__(self, site: Site) -> None:
        self._now = asyncio.get_running_loop().time()
        self._hub = site.node.hub
        site.node.app.now = site.node.hub.context.now = self

    def __call__(self) -> float:
        return self._now

    def put_forward(self, seconds: float) -> None:
        """So much later, what time alone brings about has happened."""
        self._now += seconds
        self._hub.check_timeouts(self._now)
