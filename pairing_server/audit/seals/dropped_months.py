"""Which months may be missing: those whose rows were dropped because they were old, as a sealed row says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pairing_server.audit.seals.seal import Seal

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """An event `audit.retention`: everything before the month `ends` was dropped, `rows` rows, all in seals up to `last_seal`.

    `transaction`: epoch and transaction; `recorded_at`: Unix seconds; `digest`: of its line. `ends` is empty if the row
    is not in its form.
    """

    transaction: tuple[int, int]
    seq: int
    recorded_at: int
    digest: bytes
    ends: str = ""
    rows: int = 0
    last_seal: int = 0

    @classmethod
    def parse(
        cls, transaction: tuple[int, int], seq: int, recorded_at: int, digest: bytes, attrs: Mapping[str, Any]
    ) -> RetentionRow:
        try:
            ends, rows, last_seal = str(attrs["ends"]), int(attrs["rows"]), int(attrs["last_seal"])
            _begin_of(ends)
        except (KeyError, TypeError, ValueError):
            return cls(transaction, seq, recorded_at, digest)
        return cls(transaction, seq, recorded_at, digest, ends, rows, last_seal)


def _begin_of(month: str) -> float:
    """When the month begins, in Unix seconds. Raises ValueError."""
    return datetime.strptime(month, "%Y%m").replace(tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Excuse:
    """A sealed row that says that months were dropped, and what it excuses."""

    row: RetentionRow
    seal: int
    months: tuple[str, ...]
    seals: int
    rows: int


@dataclass(slots=True)
class _Missing:
    """How many rows of one month each seal has that the log has not, by its number."""

    seals: dict[int, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(self.seals.values())


class DroppedMonths:
    """Given the seals in order, and which of their months are missing, it says which of these are excused.

    A row excuses what is missing from before its month `ends` if a seal covers it that is newer than all of these rows, if
    they were `days` old when it was recorded, and if it counts as many rows as the seals do. A month of which any row is
    still there was not dropped.
    """

    def __init__(self, rows: Sequence[RetentionRow], days: int) -> None:
        self._waiting = {row.digest: row for row in rows}
        self._days = days
        self._missing: dict[str, _Missing] = {}
        self._present: set[str] = set()
        self._refusals: list[tuple[str, str]] = []
        self.excuses: list[Excuse] = []

    def add(self, seal: Seal, missing: Collection[str], digests: Collection[bytes]) -> None:
        """A seal that is right but for the months `missing`; `digests`: those of the rows that it covers."""
        for part in seal.parts:
            if part.month not in missing:
                self._present.add(part.month)
                continue
            self._missing.setdefault(part.month, _Missing()).seals[seal.number] = part.rows
        for digest in self._waiting.keys() & digests:
            self._consider(self._waiting.pop(digest), seal)

    def _consider(self, row: RetentionRow, seal: Seal) -> None:
        covered = {month: found for month, found in self._missing.items() if month < row.ends}
        if not covered:
            return
        if (why := self._refusal(row, seal, covered)) is not None:
            self._refusals.append((row.ends, f"event {row.seq} (audit.retention) does not excuse it: {why}"))
            return
        for month in covered:
            del self._missing[month]
        seals = set().union(*(found.seals.keys() for found in covered.values()))
        rows = sum(found.rows for found in covered.values())
        self.excuses.append(Excuse(row, seal.number, tuple(sorted(covered)), len(seals), rows))

    def _refusal(self, row: RetentionRow, seal: Seal, covered: Mapping[str, _Missing]) -> str | None:
        old_enough = _begin_of(row.ends) + self._days * _DAY
        if min(row.recorded_at, seal.sealed_seconds) < old_enough:
            return f"these rows were not yet {self._days} days old"
        rows = sum(found.rows for found in covered.values())
        if row.rows != rows:
            return f"it says {row.rows} rows, the seals say {rows}"
        if there := sorted(self._present & covered.keys()):
            return f"other rows of {there[0][:4]}-{there[0][4:]} are still there"
        if not max(max(found.seals) for found in covered.values()) <= row.last_seal < seal.number:
            return f"it names seal {row.last_seal} as the last one before it"
        return None

    @property
    def first_unexcused(self) -> int | None:
        """The number of the first seal with rows that are missing without an excuse."""
        return min((min(found.seals) for found in self._missing.values()), default=None)

    @property
    def unexcused(self) -> tuple[int, int]:
        """How many seals and rows are missing without an excuse."""
        seals: set[int] = set().union(*(found.seals.keys() for found in self._missing.values()))
        return len(seals), sum(found.rows for found in self._missing.values())

    @property
    def undecided(self) -> bool:
        """Whether a row that has not been reached may excuse all that is missing."""
        newest = max(self._missing, default="")
        return any(row.ends > newest for row in self._waiting.values())

    def why(self, seal: int) -> str:
        """What the seal has and the log has not, and why that is not excused."""
        month, found = min((m, f) for m, f in self._missing.items() if seal in f.seals)
        refusals = [text for ends, text in self._refusals if ends > month]
        waiting = [row for row in self._waiting.values() if row.ends > month]
        if waiting and not refusals:
            refusals = [f"event {waiting[0].seq} (audit.retention) does not excuse it: no seal covers it yet"]
        rows = found.seals[seal]
        text = f"had {rows} rows of {month[:4]}-{month[4:]} when it was made, and now has 0"
        return "; ".join(
            [text, *(refusals or ["no sealed event audit.retention says that they were dropped"])]
        )
