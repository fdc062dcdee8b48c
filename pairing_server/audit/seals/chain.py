"""Whether seals continue one another, are signed, and fit the rows that are there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pairing_server.audit.seals.dropped_months import Excuse
from pairing_server.audit.seals.seal import NOTHING, Part, Seal, Trusted, format_key

# How many rows of a bad seal are named.
_NAMED = 20


class Rows:
    """Rows of one month, added in the order of (transaction, seq)."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, row: bytes) -> None:
        """`row`: the digest of its line."""
        self.count += 1
        self._digest.update(row)

    @property
    def digest(self) -> bytes:
        return self._digest.digest()


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the first seal that does not fit. `seal`: its number."""

    seal: int
    what: str


class Chain:
    """Seals, given one after the other with the rows that are there, and the first fault among them."""

    def __init__(self, trusted: Trusted | Collection[bytes], *, whole: bool = True) -> None:
        """`trusted`: public keys, each for all seals, or with the last one. `whole`: the first seal must be number 1.
        Otherwise the chain may begin with any seal."""
        self._trusted = trusted if isinstance(trusted, Mapping) else dict.fromkeys(trusted)
        self._last: Seal | None = None
        self._whole = whole
        self.seals = 0
        self.rows = 0

    @property
    def last(self) -> Seal | None:
        return self._last

    def add(self, seal: Seal, rows: Mapping[str, Rows], gone: Collection[str] = ()) -> Fault | None:
        """What is wrong with the seal; `gone`: the months whose rows were dropped."""
        what = self._out_of_place(seal) or self._forged(seal) or self._other_rows(seal, rows, gone)
        if what is not None:
            return what if isinstance(what, Fault) else Fault(seal.number, what)
        self._last = seal
        self.seals += 1
        self.rows += sum(found.count for found in rows.values())
        return None

    def _out_of_place(self, seal: Seal) -> Fault | str | None:
        expected = self._last.number + 1 if self._last else 1 if self._whole else seal.number
        if seal.number > expected:
            return Fault(expected, "is missing")
        if seal.number < expected:
            return "comes twice"
        previous = self._last.digest if self._last else NOTHING if self._whole else seal.previous
        if seal.previous != previous:
            return "does not continue the seal before it"
        if self._last and self._last.next_epoch != seal.epoch:
            return f"is of epoch {seal.epoch}, and the seals before it go on in epoch {self._last.next_epoch}"
        begin = self._last.to_xid if self._last and self._last.epoch == seal.epoch else None
        if begin not in (None, seal.from_xid):
            return "does not begin where the seal before it ends"
        return None

    def _forged(self, seal: Seal) -> str | None:
        if seal.public_key not in self._trusted:
            return f"is signed by a key that is not trusted: {format_key(seal.public_key)}"
        last = self._trusted[seal.public_key]
        if last is not None and seal.number > last:
            return f"is signed by a key that is trusted up to seal {last} only: {format_key(seal.public_key)}"
        return None if seal.is_signed else "has been changed: its signature is wrong"

    @staticmethod
    def _other_rows(seal: Seal, rows: Mapping[str, Rows], gone: Collection[str]) -> str | None:
        expected = {part.month: part for part in seal.parts}
        for month in sorted({*expected, *rows}):
            part, found = expected.get(month, Part(month, 0, Rows().digest)), rows.get(month, Rows())
            if month in gone and not found.count:
                continue
            if found.count != part.rows:
                return f"had {part.rows} rows of {month[:4]}-{month[4:]} when it was made, and now has {found.count}"
            if found.digest != part.digest:
                return f"has other rows of {month[:4]}-{month[4:]} than when it was made"
        return None


@dataclass(slots=True)
class Report:
    """The result of a verification: what was looked at, what may be missing, what is not sealed yet, and what is wrong.

    `seals` and `rows` are right. `excused`: rows that were dropped, and why that is right. `unsealed`: rows after the
    last seal, the oldest of `unsealed_since` (Unix seconds). `late`: rows that had waited for their seal for an hour.
    `omitted`: rows of months that an export leaves out. `unseen`: seals after the one that does not fit, which ended the
    verification (None: nothing did). `unexcused`: of how many seals how many rows are missing without an excuse.
    `suspects`: rows under the bad seal. `strays`: rows that are not as the server records them. `irregularities`: of the
    tables themselves.
    """

    seals: int = 0
    rows: int = 0
    excused: Sequence[Excuse] = ()
    unsealed: int = 0
    unsealed_since: float | None = None
    late: int = 0
    omitted: int = 0
    unseen: int | None = None
    unexcused: tuple[int, int] = (0, 0)
    fault: Fault | None = None
    last: Seal | None = None
    months: Sequence[str] = ()
    suspects: list[str] = field(default_factory=list)
    n_suspects: int = 0
    strays: list[str] = field(default_factory=list)
    n_strays: int = 0
    irregularities: Sequence[str] = ()

    @property
    def right(self) -> bool:
        return self.fault is None and not self.n_strays and not self.irregularities

    def suspect(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Name rows of the bad seal."""
        self.n_suspects = len(rows)
        self.suspects = [named(row) for row in rows[:_NAMED]]

    def stray(self, what: str) -> bool:
        """Count a row that is not as the server records it; whether it is one of the first, which are to be named."""
        self.n_strays += 1
        if self.n_strays > _NAMED:
            return False
        self.strays.append(what)
        return True


def named(row: Mapping[str, Any]) -> str:
    """A row, so that a reader can find it."""
    return f"seq {row['seq']}  {row['recorded_at']}  {row['event']}  {row['outcome']}"
