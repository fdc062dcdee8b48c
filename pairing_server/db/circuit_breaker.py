"""Whether it is worth asking the database: not after failures in a row, until a probe finds it well again.

Whoever asks meanwhile is told at once, instead of waiting for a time-out like everybody before, and the database is
not besieged when it comes back. docs/decisions/0012 says why it is our own.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pairing_server.errors import Unavailable

IN_A_ROW = 3
# Seconds between two probes, and for one. Whatever the fault is, all is well within their sum of its end.
PROBE_EVERY = 1.0
PROBE_TIMEOUT = 3.0
RETRY_AFTER = 3.0
# All connections in use is an outage only if none of them has got anything done for so many seconds; else it is a crowd.
STUCK_AFTER = 2.0

# Called with "down", "up" or "failover", the reason, and how long it has been away, in seconds.
OutageListener = Callable[[str, str, float], None]


class DatabaseUnavailable(Unavailable):
    """The database cannot do it now. `reason`: why it is away, of a closed list; None if it is not, as when a
    lock was not to be had."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message, retry_after_s=RETRY_AFTER)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Outage:
    """The database is away. `since`: monotonic seconds."""

    reason: str
    since: float


class CircuitBreaker:
    """`probe` asks the database and raises Away; only its success ends an outage. Used in the event loop."""

    def __init__(self, probe: Callable[[], Awaitable[object]], on_outage: OutageListener) -> None:
        self.outage: Outage | None = None
        # When the database was last found to be back, in monotonic seconds.
        self.back_at = -math.inf
        self._worked_at = -math.inf
        self._probe = probe
        self._on_outage = on_outage
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._probing: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raises Away while the database is known to be away."""
        if self.outage is not None:
            raise DatabaseUnavailable("The database is away. Try again in a moment.", self.outage.reason)

    def answered(self) -> None:
        """It has not done what it was asked to, for a reason that does not lie with it."""
        self._failures = 0

    def worked(self) -> None:
        """It has done what it was asked to."""
        self._failures = 0
        self._worked_at = asyncio.get_running_loop().time()

    def failed(self, reason: str, asked_at: float) -> None:
        """It has not, for a reason that lies with the database. `asked_at`: when it was asked to, in monotonic seconds."""
        if self.outage is not None or (reason == "busy" and self._is_working()):
            return
        # Who has waited since the last outage, in vain, says nothing of the database as it is now.
        if asked_at < self.back_at:
            return
        self._failures += 1
        # A server that takes no writes any more is no accident, and another may already do.
        if self._failures >= IN_A_ROW or reason == "read_only":
            self._open(reason)

    def _is_working(self) -> bool:
        return asyncio.get_running_loop().time() - self._worked_at < STUCK_AFTER

    def _open(self, reason: str) -> None:
        self.outage = Outage(reason, asyncio.get_running_loop().time())
        self._on_outage("down", reason, 0.0)
        self._later(0.0 if reason == "read_only" else PROBE_EVERY)

    def _later(self, seconds: float) -> None:
        # Several servers that have lost one database do not all ask at once.
        spread = seconds * random.uniform(0.8, 1.2)  # noqa: S311
        self._timer = asyncio.get_running_loop().call_later(spread, self._begin)

    def _begin(self) -> None:
        self._probing = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        try:
            await self._probe()
        except DatabaseUnavailable:
            self._later(PROBE_EVERY)
        else:
            self._close()

    def _close(self) -> None:
        outage, self.outage, self._failures = self.outage, None, 0
        self.back_at = asyncio.get_running_loop().time()
        if outage is not None:
            self._on_outage("up", outage.reason, self.back_at - outage.since)

    async def stop(self) -> None:
        """Probe no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
