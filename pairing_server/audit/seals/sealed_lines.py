"""The audit log in the order it is sealed in: seals, rows up to a transaction, and both as the lines of an export.

Each page is a transaction of its own, because reading everything may take long. docs/audit.md describes the format of the
lines, audit/seals/export.py reads it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime

from pairing_server.audit.seals import Seal, header, omitted
from pairing_server.audit.store import catalogue
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.catalogue import isolated
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.seals import Place, Row
from pairing_server.db.database import Database

# After every row: epoch, transaction.
END = (2**31, 0)
BATCH = 1000


# How much is read at a time: seals, rows with their lines, rows without.
SEALS = 1000
LINES = 1000
DIGESTS = 5000


async def seals(database: Database, first: int, final: int) -> AsyncIterator[Seal]:
    """The seals with these numbers, or as many of them as there are. Raises Unavailable."""
    after = first - 1
    while after < final:
        async with database.transaction() as conn, isolated(conn) as tables:
            page = await store.read(tables, after, min(SEALS, final - after))
        if not page:
            return
        for seal in page:
            yield seal
        after = page[-1].number


class RowsInOrder:
    """Reads the rows from `after` on (None: all), once. `lines`: with the line of each, and whether the filter selects it."""

    def __init__(
        self,
        database: Database,
        *,
        after: Place | None = None,
        lines: bool = False,
        which: Filter | None = None,
    ) -> None:
        self._database = database
        self._after = after
        self._lines = lines
        self._which = which
        self._size = LINES if lines else DIGESTS
        self._page: list[Row] = []
        self._next = 0
        self._ended = False

    async def upto(self, epoch: int, xid: int) -> AsyncIterator[list[Row]]:
        """The next rows, as far as they come before that transaction, some at a time. Raises Unavailable."""
        while await self._fill():
            begin = self._next
            self._next = bisect_left(self._page, (epoch, xid), lo=begin, key=_transaction)
            if self._next > begin:
                yield self._page[begin : self._next]
            if self._next < len(self._page):
                return

    async def _fill(self) -> bool:
        """Read a page if none is left; whether there are rows."""
        if self._next < len(self._page):
            return True
        if self._ended:
            return False
        async with self._database.transaction() as conn, isolated(conn) as tables:
            self._page = await store.rows(
                tables, self._after, self._size, lines=self._lines, which=self._which
            )
        self._next = 0
        self._ended = len(self._page) < self._size
        if self._page:
            self._after = self._place()
        return bool(self._page)

    def _place(self) -> Place:
        """The place after the page."""
        epoch, xid = newest = _transaction(self._page[-1])
        read = len(self._page) - bisect_left(self._page, newest, key=_transaction)
        before = self._after
        return epoch, xid, read + (before[2] if before is not None and before[:2] == newest else 0)


def _transaction(row: Row) -> tuple[int, int]:
    return row.epoch, row.xid


class SealedLines:
    """`public_key`: that of the seals, for the first line."""

    def __init__(self, database: Database, public_key: bytes) -> None:
        self._database = database
        self._public_key = public_key

    async def batches(
        self, now: datetime, *, months: Sequence[str] | None = None, which: Filter | None = None
    ) -> AsyncIterator[list[str]]:
        """The lines of an export, BATCH at a time.

        `months` ("202611"): only rows of these, and the seals that cover them. Of an event that `which` does not want
        only the digest is in it, so that the others can still be verified.
        """
        batch: list[str] = []
        async for line in self._lines(now, months, which):
            batch.append(line)
            if len(batch) >= BATCH:
                yield batch
                batch = []
        yield batch

    async def _lines(
        self, now: datetime, months: Sequence[str] | None, which: Filter | None
    ) -> AsyncIterator[str]:
        async with self._database.transaction() as conn, isolated(conn) as tables:
            oldest = (await catalogue.partitions(tables))[0].begins
            begins = oldest.strftime("%Y%m") if oldest is not None else ""
            known = sorted({*await store.months(tables), now.strftime("%Y%m")})
            # The others have been dropped.
            wanted = [month for month in (months or known) if month >= begins]
            spans = [span for month in wanted if (span := await store.of_month(tables, month))]
            newest = await store.last(tables)
        yield header(wanted, self._public_key, now.isoformat())
        first = min((span[0] for span in spans), default=1)
        final = max((span[1] for span in spans), default=0)
        rows: RowsInOrder | None = None
        async for seal in seals(self._database, first, final):
            rows = rows or RowsInOrder(self._database, after=_before(seal), lines=True, which=which)
            async for line in _lines(rows, seal.epoch, seal.to_xid, wanted):
                yield line
            yield seal.line
        sealed_last = newest.number if newest else 0
        if final == sealed_last and (months is None or now.strftime("%Y%m") in wanted):
            rows = rows or RowsInOrder(self._database, lines=True, which=which)
            # Of whatever month: what is not sealed is in no month that the seals know.
            async for line in _lines(rows, *END, wanted if months is not None else None):
                yield line


def _before(seal: Seal) -> Place | None:
    """The place before the seal's rows."""
    return None if seal.number == 1 else (seal.epoch, seal.from_xid, 0)


async def _lines(
    rows: RowsInOrder, epoch: int, xid: int, months: Collection[str] | None
) -> AsyncIterator[str]:
    """The lines of rows of these months; None: of all."""
    async for found in rows.upto(epoch, xid):
        for row in found:
            if months is None or row.month in months:
                yield row.line if row.wanted else omitted(row.digest, row.month)
