"""The node's time, which a test puts forward instead of waiting."""

from __future__ import annotations

import asyncio

from tests.devices import Site


class Clock:
    """What the connections opened from now on count their limits by, in monotonic seconds."""

    def __init__(self, site: Site) -> None:
        self._real = asyncio.get_running_loop().time
        self._ahead = 0.0
        self._hub = site.node.hub
        site.node.edge.now = site.node.hub.now = self

    def __call__(self) -> float:
        return self._real() + self._ahead

    def put_forward(self, seconds: float) -> None:
        """So much later, what time alone brings about has happened."""
        self._ahead += seconds
        self._hub.tick(self())
