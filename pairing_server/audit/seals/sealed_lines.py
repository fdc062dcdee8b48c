"""The audit log as lines that can be verified by themselves: events and seals, in the order of sealing.

docs/audit.md describes the format, audit/seals/export.py reads it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pairing_server.audit.seals import Seal, header, omitted
from pairing_server.audit.seals.sealing_order import RowsInOrder, seals
from pairing_server.audit.store import partitions
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.seals import BEGINNING, Place

if TYPE_CHECKING:
    from pairing_server.services.deps import Deps

# No epoch comes so late.
END = 2**31

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
    rows: RowsInOrder | None = None
    async for seal in seals(deps, first, final):
        rows = rows or RowsInOrder(deps, after=_before(seal), lines=True)
        async for line in _lines(rows, seal.epoch, seal.to_xid, wanted, keep):
            yield line
        yield seal.line
    sealed_last = newest.number if newest else 0
    if final == sealed_last and (months is None or now.strftime("%Y%m") in wanted):
        rows = rows or RowsInOrder(deps, lines=True)
        async for line in _lines(rows, END, 0, wanted, keep):
            yield line


def _before(seal: Seal) -> Place:
    """The place before the seal's rows."""
    return BEGINNING if seal.number == 1 else (seal.epoch, seal.from_xid, -1)


async def _lines(
    rows: RowsInOrder, epoch: int, xid: int, months: Collection[str], keep: Keep | None
) -> AsyncIterator[str]:
    async for found in rows.upto(epoch, xid):
        for row in found:
            if row.month in months:
                wanted = keep is None or keep(json.loads(row.line))
                yield row.line if wanted else omitted(row.digest, row.month)
