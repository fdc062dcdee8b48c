"""The audit log as lines that can be verified by themselves: events and seals, in the order of sealing.

docs/audit.md describes the format, pairing_server/seals.py reads it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pairing_server.seals import Seal, header, omitted
from pairing_server.services.seals import BEGINNING
from pairing_server.store import partitions
from pairing_server.store import seals as store
from pairing_server.store.seals import Row

if TYPE_CHECKING:
    from pairing_server.services.deps import Deps

_PAGE = 1000

# Whether an event, as its line has it, is wanted.
Keep = Callable[[Mapping[str, Any]], bool]


async def lines(
    deps: Deps, now: datetime, *, months: Sequence[str] | None = None, keep: Keep | None = None
) -> AsyncIterator[str]:
    """The lines of an export, one after the other.

    `months` ("202611"): only rows of these, and the seals they are in. Of an event that is not to be kept only the
    digest goes along, so that the others can still be verified. Each page is a transaction of its own: an export may
    take long, and holds up nobody.
    """
    async with deps.reading.transaction() as conn:
        oldest = (await partitions.every(conn))[0].begins
        begins = oldest.strftime("%Y%m") if oldest is not None else ""
        known = sorted({*await store.months(conn), now.strftime("%Y%m")})
        # The others have been dropped.
        wanted = [month for month in (months or known) if month >= begins]
        spans = [span for month in wanted if (span := await store.of_month(conn, month))]
        newest = await store.last(conn)
    yield header(wanted, deps.sealer.key.public, now.isoformat())
    first = min((span[0] for span in spans), default=1)
    final = max((span[1] for span in spans), default=0)
    sealed_last = newest.number if newest else 0
    reader = _Reader(deps, frozenset(wanted), keep)
    async for seal in _seals(deps, first, final):
        reader.begin(seal)
        async for line in reader.upto(seal.epoch, seal.to_xid):
            yield line
        yield seal.line
    if final == sealed_last and (months is None or now.strftime("%Y%m") in wanted):
        async for line in reader.upto(2**31, 0):
            yield line


async def _seals(deps: Deps, first: int, final: int) -> AsyncIterator[Seal]:
    after = first - 1
    while after < final:
        async with deps.reading.transaction() as conn:
            page = await store.read(conn, after, min(_PAGE, final - after))
        if not page:
            return
        for seal in page:
            yield seal
        after = page[-1].number


class _Reader:
    """Reads the rows in the order of sealing, and makes their lines."""

    def __init__(self, deps: Deps, months: frozenset[str], keep: Keep | None) -> None:
        self._deps = deps
        self._months = months
        self._keep = keep
        self._after = BEGINNING
        self._begun = False
        self._waiting: list[Row] = []

    def begin(self, seal: Seal) -> None:
        """The first seal says where to begin."""
        if not self._begun and seal.number > 1:
            self._after = (seal.epoch, seal.from_xid, -1)
        self._begun = True

    async def upto(self, epoch: int, xid: int) -> AsyncIterator[str]:
        """The lines of the rows before that transaction."""
        while True:
            rows, self._waiting = self._waiting, []
            ended = False
            if not rows:
                async with self._deps.reading.transaction() as conn:
                    rows = await store.rows(conn, self._after, _PAGE, lines=True)
                ended = len(rows) < _PAGE
                if rows:
                    self._after = (rows[-1].epoch, rows[-1].xid, rows[-1].seq)
            for place, row in enumerate(rows):
                if (row.epoch, row.xid) >= (epoch, xid):
                    self._waiting = rows[place:]
                    return
                if row.month in self._months:
                    yield self._line(row)
            if ended:
                return

    def _line(self, row: Row) -> str:
        if self._keep is None or self._keep(json.loads(row.line)):
            return row.line
        return omitted(row.digest, row.month)
