"""Measures how late the event loop is, and feeds the service manager's watchdog from the loop alone.

A blocked loop does not feed the watchdog, so the manager restarts the process. The database is not asked: the
process is fine while the database is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client import Histogram

from pairing_server.server.systemd import Notifier

log = logging.getLogger(__name__)

# Related durations. A loop that is late by DEAD_SECONDS does not feed the watchdog. The watchdog is fed several
# times in its interval, so that one late tick does no harm.
TICK_SECONDS = 0.5
LATE_SECONDS = 1.0
DEAD_SECONDS = 5.0
FEEDS_PER_INTERVAL = 3
STATUS_SECONDS = 5.0

Later = Callable[[float, Callable[[], None]], object]


class Watchdog:
    """`now`: the loop's monotonic seconds; `later(seconds, call)` schedules a call."""

    def __init__(
        self,
        now: Callable[[], float],
        later: Later,
        notifier: Notifier,
        status: Callable[[], str],
        lag: Histogram,
    ) -> None:
        """`status` describes in one line what the server does; a change is sent to the manager. `lag` is observed."""
        self._now = now
        self._later = later
        self._notifier = notifier
        self._status = status
        self._lag = lag
        self._due: float | None = None
        self._fed_at: float | None = None
        self._sent_status = ""
        self._sent_at = float("-inf")

    def start(self) -> None:
        self._due = self._now() + TICK_SECONDS
        self._later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        self._due = None

    def _tick(self) -> None:
        if self._due is None:
            return
        now = self._now()
        lag = max(0.0, now - self._due)
        self._lag.observe(lag)
        if lag > LATE_SECONDS:
            log.warning("event loop blocked", extra={"seconds": round(lag, 1)})
        if lag < DEAD_SECONDS:
            self._feed(now)
            self._send_status(now)
        self._due = now + TICK_SECONDS
        self._later(TICK_SECONDS, self._tick)

    def _feed(self, now: float) -> None:
        watchdog = self._notifier.watchdog
        if watchdog is None:
            return
        if self._fed_at is None or now - self._fed_at >= watchdog / FEEDS_PER_INTERVAL - TICK_SECONDS:
            self._notifier.alive()
            self._fed_at = now

    def _send_status(self, now: float) -> None:
        if not self._notifier.connected or now - self._sent_at < STATUS_SECONDS:
            return
        if (status := self._status()) != self._sent_status:
            self._notifier.status(status)
            self._sent_status, self._sent_at = status, now
