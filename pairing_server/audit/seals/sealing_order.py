"""The audit log in the order it is sealed in: seals, and rows up to a transaction.

Each page is a transaction of its own, because reading everything may take long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator

from pairing_server.audit.seals import Seal
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.seals import BEGINNING, Place, Row
from pairing_server.db.database import Database

# How much is read at a time: seals, rows with their lines, rows without.
SEALS = 1000
LINES = 1000
DIGESTS = 5000


async def seals(database: Database, first: int, final: int) -> AsyncIterator[Seal]:
    """The seals with these numbers, or as many of them as there are. Raises Unavailable."""
    after = first - 1
    while after < final:
        async with database.transaction() as conn:
            page = await store.read(conn, after, min(SEALS, final - after))
        if not page:
            return
        for seal in page:
            yield seal
        after = page[-1].number


class RowsInOrder:
    """Reads the rows from `after` on, once. `lines`: with the line of each, and whether the filter wants it."""

    def __init__(
        self,
        database: Database,
        *,
        after: Place = BEGINNING,
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
        async with self._database.transaction() as conn:
            self._page = await store.rows(conn, self._after, self._size, lines=self._lines, which=self._which)
        self._next = 0
        self._ended = len(self._page) < self._size
        if self._page:
            newest = self._page[-1]
            self._after = (newest.epoch, newest.xid, newest.seq)
        return bool(self._page)


def _transaction(row: Row) -> tuple[int, int]:
    return row.epoch, row.xid
