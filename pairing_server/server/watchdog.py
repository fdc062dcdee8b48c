"""The event loop's own pulse: how late it is, and the service manager's watchdog, fed by nothing else.

A loop that is blocked feeds nobody, so the manager restarts it. Nothing here asks the database: while that is
away the process is fine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client import Histogram

from pairing_server.server.systemd import Notifier

log = logging.getLogger(__name__)

# Related durations, in seconds. A loop that is late by more than DEAD is not called alive. The manager is told
# three times in its interval, so that one beat that is late does no harm.
EVERY = 0.5
LATE = 1.0
DEAD = 5.0
FEEDS = 3
STATUS_EVERY = 5.0

Later = Callable[[float, Callable[[], None]], object]


class Pulse:
    """`now`: the loop's monotonic seconds; `later` runs a call after some of them."""

    def __init__(
        self,
        now: Callable[[], float],
        later: Later,
        notifier: Notifier,
        status: Callable[[], str],
        lag: Histogram,
    ) -> None:
        """`status`: one line on what the server does; told when it has changed. `lag` takes the measurements."""
        self._now = now
        self._later = later
        self._notifier = notifier
        self._status = status
        self._lag = lag
        self._due: float | None = None
        self._fed: float | None = None
        self._told = ""
        self._told_at = float("-inf")

    def start(self) -> None:
        self._due = self._now() + EVERY
        self._later(EVERY, self._beat)

    def stop(self) -> None:
        self._due = None

    def _beat(self) -> None:
        if self._due is None:
            return
        now = self._now()
        lag = max(0.0, now - self._due)
        self._lag.observe(lag)
        if lag > LATE:
            log.warning("the event loop was blocked for %.1f s", lag)
        if lag < DEAD:
            self._feed(now)
        self._due = now + EVERY
        self._later(EVERY, self._beat)

    def _feed(self, now: float) -> None:
        watchdog = self._notifier.watchdog
        if watchdog is not None and (self._fed is None or now - self._fed >= watchdog / FEEDS - EVERY):
            self._notifier.alive()
            self._fed = now
        if not self._notifier.listens or now - self._told_at < STATUS_EVERY:
            return
        if (status := self._status()) != self._told:
            self._notifier.status(status)
            self._told, self._told_at = status, now
