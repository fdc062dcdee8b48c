"""Rates, lock-outs and sliding windows: how many attempts are allowed, and how long to wait for the next.

The counts are stored elsewhere. The limits are low because a random guess hits one live code with 10⁻⁶, any of many
live codes more often, and a guesser can change addresses (docs/protocol.md, "Limits").
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# Counts are stored for two days: no rate and no lock is longer than one day.
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
    """Refuses an attempt when one of `rates` is used up.

    `lock_seconds`: how long the first, second, … lock in a row lasts; the last one repeats. Without locks, the next
    attempt is allowed when the oldest has left its window. The row begins anew `reset_seconds` after a lock has ended.
    """

    rates: tuple[Rate, ...]
    lock_seconds: tuple[float, ...] = ()
    reset_seconds: float = _DAY

    @property
    def window_seconds(self) -> float:
        """The longest window of the rates."""
        return max(rate.seconds for rate in self.rates)


@dataclass(frozen=True, slots=True)
class Count:
    """The attempts of one user or address: `times`, oldest first, and `level`, the number of locks in a row."""

    times: tuple[datetime, ...] = ()
    level: int = 0
    locked_until: datetime | None = None


def wait(count: Count, policy: Policy, now: datetime) -> float:
    """Seconds until another attempt is allowed; 0 if it is allowed now."""
    if count.locked_until is not None and count.locked_until > now:
        return (count.locked_until - now).total_seconds()
    if policy.lock_seconds:
        return 0.0  # a rate that is reached locks at once
    return max((_until_free(count.times, rate, now) for rate in policy.rates), default=0.0)


def _until_free(times: Sequence[datetime], rate: Rate, now: datetime) -> float:
    recent = [at for at in times if at > now - timedelta(seconds=rate.seconds)]
    if len(recent) < rate.count:
        return 0.0
    return (recent[-rate.count] + timedelta(seconds=rate.seconds) - now).total_seconds()


def charge(count: Count, policy: Policy, now: datetime) -> Count:
    """The count with one more attempt at `now`. It locks if a rate is reached."""
    times = (*(at for at in count.times if at > now - timedelta(seconds=policy.window_seconds)), now)
    level = count.level
    if level and count.locked_until and count.locked_until + timedelta(seconds=policy.reset_seconds) < now:
        level = 0
    if not policy.lock_seconds:
        # More times than the largest rate allows make no difference.
        return Count(times[-max(rate.count for rate in policy.rates) :], level, count.locked_until)
    if not any(_until_free(times, rate, now) for rate in policy.rates):
        return Count(times, level, count.locked_until)
    lock = policy.lock_seconds[min(level, len(policy.lock_seconds) - 1)]
    # New failures must lead to the next lock, except for rates whose window is longer than the lock.
    kept = times if any(rate.seconds > lock for rate in policy.rates) else ()
    return Count(kept, level + 1, now + timedelta(seconds=lock))


class SlidingWindow:
    """A rate for many keys, in memory. Of more than `max_keys`, the longest idle key is dropped."""

    def __init__(self, rate: Rate, max_keys: int = 100_000) -> None:
        self.rate = rate
        self._max_keys = max_keys
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def change(self, rate: Rate) -> None:
        """Use another rate from now on. The attempts counted so far still count."""
        if rate != self.rate:
            self.rate = rate
            self._times = OrderedDict(
                (key, deque(times, maxlen=rate.count)) for key, times in self._times.items()
            )

    def wait(self, key: str, now: float) -> float:
        """Seconds until another attempt is allowed; 0 if it is allowed now."""
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
