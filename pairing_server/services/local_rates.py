"""How often one user, or one address, may do what succeeds: counted by this process, since a few more do no harm.

What fails is counted in the database (services/rate_limits.py): guesses must not gain by a second server.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pairing_server.errors import RateLimited
from pairing_server.security.limits import Rate, SlidingWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Logins with the right password, ws tokens made, WebSockets opened, and logins ended one by one."""

    login_user: Rate
    login_address: Rate
    ws_token: Rate
    connect: Rate
    logout: Rate


class LocalRates:
    """The windows of these rates, by their names. `now` is in seconds, of whichever clock, but always of the same."""

    def __init__(self, rates: Rates) -> None:
        self._windows = {field.name: SlidingWindow(getattr(rates, field.name)) for field in fields(rates)}

    def change(self, rates: Rates) -> None:
        """Have these rates from now on."""
        for name, window in self._windows.items():
            window.change(getattr(rates, name))

    def check(self, limit: str, key: str, now: float, text: str) -> None:
        """Raises RateLimited with that text."""
        if wait := self._windows[limit].wait(key, now):
            raise RateLimited(wait, text, limit=limit)

    def charge(self, limit: str, key: str, now: float) -> None:
        self._windows[limit].charge(key, now)
