"""What is measured rather than counted: how values are spread. Cheap enough for the relay path.

How it is shown to others is the edge's business (web/metrics.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """How many values fell below which bound. `bounds`: rising; what is above the last is counted apart."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulated(self) -> list[int]:
        """For each bound how many values were not above it, and at last how many there were."""
        sums, found = 0, []
        for count in self.counts:
            sums += count
            found.append(sums)
        return found
