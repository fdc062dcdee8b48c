"""A token bucket: how often something may happen. Time is an argument."""

from __future__ import annotations


class TokenBucket:
    """`rate` a second on average, `burst` at once. `now` is monotonic seconds."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float, amount: float = 1.0) -> float:
        """0 if allowed, and then it is taken; else the seconds until it would be.

        An amount larger than the burst is allowed when the bucket is full, and leaves a debt.
        """
        tokens = self._tokens + (now - self._at) * self.rate
        if tokens > self.burst:
            tokens = self.burst
        self._at = now
        # Comparisons, not min(): this is called twice for each message.
        if tokens >= amount or tokens == self.burst:
            self._tokens = tokens - amount
            return 0.0
        self._tokens = tokens
        needed = amount if amount < self.burst else self.burst
        return (needed - tokens) / self.rate
