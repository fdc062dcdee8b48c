"""The alarm: when too many codes fail everywhere together, somebody is guessing, whoever he pretends to be.

Each server counts its own failures and puts them together in the database once a second, so that a flood of guesses
does not queue for one row; what has been found holds for all of them, and for a server that starts later.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from pairing_server.security.limits import Policy, Rate
from pairing_server.services import rate_limits
from pairing_server.services.rate_limits import LimitKey

if TYPE_CHECKING:
    from pairing_server.request_context import RequestContext
    from pairing_server.services.deps import Deps

log = logging.getLogger(__name__)

KIND, KEY = "redeem_alarm", "all"
LASTS = 600


def policy(rate: Rate) -> Policy:
    """Above the rate, the alarm is on for ten minutes from the last time."""
    return Policy((rate,), locks=(LASTS,))


class BruteForceGuard:
    """What one process knows of it."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.until: datetime | None = None
        # More than the rate never matter.
        self._failed: deque[datetime] = deque(maxlen=rate.count)
        # To which connection which request for a confirmation was sent.
        self.told: set[tuple[UUID, str]] = set()

    def on(self, now: datetime) -> bool:
        return self.until is not None and now < self.until

    def set(self, until: datetime | None, now: datetime) -> None:
        """What the database says. The log tells when it goes on."""
        was_on, self.until = self.on(now), until
        if self.on(now) and not was_on:
            log.warning(
                "codes are being guessed, more than %s in %d s: until %s those of other accounts need the desktop's word",
                self.rate.count,
                self.rate.seconds,
                f"{until:%H:%M:%S} UTC",
            )

    def failed(self, at: datetime) -> bool:
        """A code did not work. Whether that should be settled at once: here alone it is enough for an alarm."""
        self._failed.append(at)
        return len(self._failed) == self.rate.count

    def take(self) -> list[datetime]:
        """What has not been settled yet, which is then done."""
        taken = list(self._failed)
        self._failed.clear()
        return taken


async def settle(deps: Deps, context: RequestContext) -> None:
    """Count this process's failures with everybody's, and learn whether the alarm is on.

    Who sets it off records that, in the same transaction.
    """
    alarm = deps.alarm
    limit = LimitKey(KIND, KEY, policy(alarm.rate))
    taken = alarm.take()
    try:
        async with deps.database.transaction() as conn:
            if not taken:
                alarm.set(await rate_limits.locked_until(conn, limit), context.now)
                return
            counting = await rate_limits.hold(conn, [limit], context.now)
            before = counting.locked_until
            until = None
            for at in taken:
                for lockout in await counting.charge(at):
                    until = lockout.until
            if until is not None and not (before and before > context.now):
                event = deps.audit.event(
                    "pairing.bruteforce",
                    "denied",
                    context,
                    scope="global",
                    failures=alarm.rate.count,
                    window_s=round(alarm.rate.seconds),
                    measure="confirmation",
                    until=until.isoformat(),
                )
                await deps.audit.record(conn, event)
    except BaseException:
        for at in taken:
            alarm.failed(at)
        raise
    alarm.set(until or before, context.now)
