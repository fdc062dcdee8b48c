"""How often somebody may fail, and how long he then waits. Rules only: what is counted is stored elsewhere.

Why so few: one guess at one live code hits with 10⁻⁶, a guesser hits any live code, and addresses are
cheap (docs/protocol.md, "Limits").
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# What is counted is kept for two days: no rate and no lock is longer than one.
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in any `seconds`."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From "N/seconds". Raises ValueError with what was expected."""
        count, slash, seconds = text.partition("/")
        if not (slash and text.isascii() and count.strip().isdecimal() and seconds.strip().isdecimal()):
            raise ValueError(f"expected N/seconds such as 5/300, got {text[:40]!r}")
        if not (1 <= int(count) <= 10**6 and 1 <= int(seconds) <= _DAY):
            raise ValueError(
                f"expected N/seconds with N from 1 to {10**6} and seconds from 1 to {_DAY}, got {text[:40]!r}"
            )
        return cls(int(count), float(seconds))

    def __str__(self) -> str:
        return f"{self.count}/{self.seconds:g}"


@dataclass(frozen=True, slots=True)
class Policy:
    """When `rates` are used up, the next is refused.

    `locks`: seconds of the first, second, … lock in a row; the last one repeats. Without any, one
    simply waits until the oldest has left its window. A lock's step is forgotten `calm` seconds after
    the lock ended.
    """

    rates: tuple[Rate, ...]
    locks: tuple[float, ...] = ()
    calm: float = 86400.0

    @property
    def memory(self) -> float:
        """Seconds for which anything counted may still matter."""
        return max(rate.seconds for rate in self.rates)


REDEEM_ADDRESS = Policy((Rate(5, 300),), locks=(300, 900, 3600, 86400))
REDEEM_USER = Policy((Rate(10, 900), Rate(30, 86400)), locks=(3600,))
LOGIN_USER = Policy((Rate(10, 900),))
LOGIN_ADDRESS = Policy((Rate(30, 900),))
REGISTER_ADDRESS = Policy((Rate(30, 900),))


@dataclass(frozen=True, slots=True)
class Count:
    """What stands against one user or address: `times` oldest first, `level` locks in a row so far."""

    times: tuple[datetime, ...] = ()
    level: int = 0
    locked_until: datetime | None = None


def wait(count: Count, policy: Policy, now: datetime) -> float:
    """Seconds until another attempt is allowed; 0 if it is allowed now."""
    if count.locked_until is not None and count.locked_until > now:
        return (count.locked_until - now).total_seconds()
    if policy.locks:
        return 0.0  # reaching a rate has locked already
    return max((_until_free(count.times, rate, now) for rate in policy.rates), default=0.0)


def _until_free(times: Sequence[datetime], rate: Rate, now: datetime) -> float:
    recent = [at for at in times if at > now - timedelta(seconds=rate.seconds)]
    if len(recent) < rate.count:
        return 0.0
    return (recent[-rate.count] + timedelta(seconds=rate.seconds) - now).total_seconds()


def charge(count: Count, policy: Policy, now: datetime) -> Count:
    """The count with one more attempt at `now`; it locks when a rate is reached."""
    times = (*(at for at in count.times if at > now - timedelta(seconds=policy.memory)), now)
    level = count.level
    if level and count.locked_until and count.locked_until + timedelta(seconds=policy.calm) < now:
        level = 0
    if not policy.locks:
        # No more than the largest rate can matter.
        return Count(times[-max(rate.count for rate in policy.rates) :], level, count.locked_until)
    if not any(_until_free(times, rate, now) for rate in policy.rates):
        return Count(times, level, count.locked_until)
    lock = policy.locks[min(level, len(policy.locks) - 1)]
    # A new lock must be earned by new failures, except against the rates longer than the lock.
    kept = times if any(rate.seconds > lock for rate in policy.rates) else ()
    return Count(kept, level + 1, now + timedelta(seconds=lock))


class SlidingWindow:
    """A rate for many keys in this process's memory, bounded in keys: the longest idle are forgotten."""

    def __init__(self, rate: Rate, max_keys: int = 100_000) -> None:
        self.rate = rate
        self._max_keys = max_keys
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def change(self, rate: Rate) -> None:
        """Another rate from now on; what has been counted counts."""
        if rate != self.rate:
            self.rate = rate
            self._times = OrderedDict(
                (key, deque(times, maxlen=rate.count)) for key, times in self._times.items()
            )

    def wait(self, key: str, now: float) -> float:
        """Seconds until another is allowed; 0 if now."""
        times = self._times.get(key)
        if times is None:
            return 0.0
        while times and times[0] <= now - self.rate.seconds:
            times.popleft()
        return times[0] + self.rate.seconds - now if len(times) >= self.rate.count else 0.0

    def charge(self, key: str, now: float) -> None:
        times = self._times.setdefault(key, deque(maxlen=self.rate.count))
        times.append(now)
        self._times.move_to_end(key)
        if len(self._times) > self._max_keys:
            self._times.popitem(last=False)
