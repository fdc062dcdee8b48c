"""The guard against guessed codes: when too many codes fail on all servers together, other accounts need a confirmation.

Each server counts its own failures and adds them up in the database once a second, so that a flood of guesses
does not queue for one row. The result holds for all servers, also for one that starts later.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext
from pairing_server.security.limits import Policy, Rate
from pairing_server.services import rate_limits
from pairing_server.services.rate_limits import LimitKey

log = logging.getLogger(__name__)

KIND, KEY = "redeem_alarm", "all"
DURATION_S = 600


class BruteForceGuard:
    """What one process knows of it."""

    def __init__(self, database: Database, audit: AuditLog, rate: Rate) -> None:
        """Above the rate, the guard is active for ten minutes from the last time."""
        self._database = database
        self._audit = audit
        self._rate = rate
        self.limit = LimitKey(KIND, KEY, Policy((rate,), lock_seconds=(DURATION_S,)))
        self.until: datetime | None = None
        # More than the rate never matter.
        self._failed: deque[datetime] = deque(maxlen=rate.count)

    def active(self, now: datetime) -> bool:
        return self.until is not None and now < self.until

    def record_failure(self, at: datetime) -> bool:
        """A code did not work. Whether to call `settle` at once: these failures alone make the guard active."""
        self._failed.append(at)
        return len(self._failed) == self._rate.count

    async def settle(self, context: RequestContext) -> None:
        """Add this process's failures to those of all, and learn whether the guard is active.

        The server whose failures make it active records that, in the same transaction.
        """
        failures = list(self._failed)
        self._failed.clear()
        try:
            async with self._database.transaction() as conn:
                if not failures:
                    self._set(await rate_limits.locked_until(conn, self.limit), context.now)
                    return
                counting = await rate_limits.hold(conn, [self.limit], context.now)
                before = counting.locked_until
                until = None
                for at in failures:
                    for lockout in await counting.charge(at):
                        until = lockout.until
                if until is not None and not (before and before > context.now):
                    event = self._audit.event(
                        "pairing.bruteforce",
                        "denied",
                        context,
                        scope="global",
                        failures=self._rate.count,
                        window_s=round(self._rate.seconds),
                        measure="confirmation",
                        until=until.isoformat(),
                    )
                    await self._audit.record(conn, event)
        except BaseException:
            self._failed.extend(failures)
            raise
        self._set(until or before, context.now)

    def _set(self, until: datetime | None, now: datetime) -> None:
        was_active, self.until = self.active(now), until
        if self.active(now) and not was_active:
            log.warning(
                "brute force guard active",
                extra={
                    "until": f"{until:%Y-%m-%dT%H:%M:%SZ}",
                    "failures": self._rate.count,
                    "window_s": round(self._rate.seconds),
                },
            )
