"""The circuit breaker: after failures in a row, requests fail at once until a probe finds that the database works.

So they do not wait for a time-out each, and do not all reach the database when it comes back. docs/decisions/0012 says why
it is our own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pairing_server.errors import Unavailable

log = logging.getLogger(__name__)

IN_A_ROW = 3
# Seconds between two probes, and for one. An outage ends at the latest their sum after the fault has.
PROBE_EVERY = 1.0
PROBE_TIMEOUT = 3.0
RETRY_AFTER = 3.0
# All connections in use is an outage only if none of them has finished anything for so many seconds; else it is load.
STUCK_AFTER = 2.0

# Called with "down", "up" or "failover", the reason, and how long it has been away, in seconds.
OutageListener = Callable[[str, str, float], None]


class DatabaseUnavailable(Unavailable):
    """The database cannot do it now. `reason`: why it is unavailable, of a closed list; None if it is available, as when a
    lock timed out."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message, retry_after_s=RETRY_AFTER)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Outage:
    """The database is unavailable. `since`: monotonic seconds."""

    reason: str
    since: float


class CircuitBreaker:
    """`probe` asks the database and raises DatabaseUnavailable; only its success ends an outage. Used in the event loop."""

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
        """Raises DatabaseUnavailable during an outage."""
        if self.outage is not None:
            raise DatabaseUnavailable("The database is away. Try again in a moment.", self.outage.reason)

    def answered(self) -> None:
        """A statement has failed, for a reason that does not lie with the database."""
        self._failures = 0

    def worked(self) -> None:
        """A statement has succeeded."""
        self._failures = 0
        self._worked_at = asyncio.get_running_loop().time()

    def failed(self, reason: str, asked_at: float) -> None:
        """A statement has failed, for a reason that lies with the database. `asked_at`: when it began, in monotonic seconds."""
        if self.outage is not None or (reason == "busy" and self._is_working()):
            return
        # A failure that began during the last outage says nothing of the database as it is now.
        if asked_at < self.back_at:
            return
        self._failures += 1
        # A server becomes read-only in a failover, and another may already take writes. On a full disk reads succeed, so
        # that failures are not in a row.
        if self._failures >= IN_A_ROW or reason in ("read_only", "disk_full"):
            self.open(reason)

    def _is_working(self) -> bool:
        return asyncio.get_running_loop().time() - self._worked_at < STUCK_AFTER

    def open(self, reason: str) -> None:
        """It is known to be away: an outage begins, unless there is one."""
        if self.outage is not None:
            return
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
        except DatabaseUnavailable as error:
            self._note_reason(error)
            self._later(PROBE_EVERY)
        else:
            self._close()

    def _note_reason(self, error: DatabaseUnavailable) -> None:
        """As where it could not be reached at first, and now refuses the password."""
        if self.outage is not None and error.reason not in (None, self.outage.reason):
            self.outage = Outage(str(error.reason), self.outage.since)
            cause = str(error.__cause__ or error)
            log.warning("database still down", extra={"reason": error.reason, "error": cause})

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
