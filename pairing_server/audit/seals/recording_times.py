"""Whether rows were recorded when they say so: compared with earlier transactions, and with when they were sealed."""

from __future__ import annotations

# A transaction of the server ends within seconds. So long may the clocks of two hosts of the database differ, too.
SLACK_SECONDS = 60

Transaction = tuple[int, int]


class RecordingTimes:
    """Given the rows in the order of their transactions (epoch, transaction), it says whose `recorded_at` is impossible.

    A transaction gets its number when it first writes, so its rows are not recorded before those of earlier ones, but
    for as long as one takes. All times are Unix seconds.
    """

    def __init__(self) -> None:
        self._transaction: Transaction | None = None
        # The latest time of all transactions before this one, and of this one, too.
        self._before: float = float("-inf")
        self._latest: float = float("-inf")

    def fault(self, transaction: Transaction, recorded_at: float, until: float) -> str | None:
        """What is wrong with the row's time; `until`: when it was sealed, or now."""
        if transaction != self._transaction:
            self._transaction, self._before = transaction, self._latest
        if recorded_at < self._before - SLACK_SECONDS:
            return "is older than rows of earlier transactions: it was backdated"
        if recorded_at > until + SLACK_SECONDS:
            return "is newer than its seal, or than now"
        self._latest = max(self._latest, recorded_at)
        return None
