"""Verifying that the audit log is what was sealed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals import Chain, Fault, Report, Rows, Seal
from pairing_server.audit.seals.sealed_lines import RowsInOrder, seals
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.store import partitions
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.seals import BEGINNING
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext


class Verifier:
    """Verifies the log in the database against the seals there, and these against what the sealer's machine remembers."""

    def __init__(self, database: Database, audit: AuditLog, sealer: Sealer) -> None:
        self._database = database
        self._audit = audit
        self._sealer = sealer

    async def verify(
        self, context: RequestContext, copies: Mapping[int, str], trusted: frozenset[bytes] = frozenset()
    ) -> Report:
        """Compute every seal anew from the rows that are there. The verification is recorded, too.

        `copies`: digests of seals, by number, from outside; `trusted`: public keys besides the sealer's.
        """
        if (newest := self._sealer.memory.newest()) is not None:
            copies = {newest.number: newest.digest.hex(), **copies}
        report = await self._verify(copies, trusted | {self._sealer.key.public})
        fault = report.fault
        event = self._audit.event(
            "audit.verify",
            "failure" if fault else "success",
            context,
            reason="bad_seal" if fault else None,
            seals=report.seals,
            rows=report.rows,
            first_bad=fault.seal if fault else None,
        )
        async with self._database.transaction() as conn:
            await self._audit.record(conn, event)
        return report

    async def _verify(self, copies: Mapping[int, str], trusted: frozenset[bytes]) -> Report:
        async with self._database.transaction() as conn:
            epoch, newest = await store.epoch(conn), await store.last(conn)
            kept_from = await _kept_from(conn)
        final = newest.number if newest is not None else 0
        report, chain, rows = Report(), Chain(trusted), RowsInOrder(self._database)
        async for seal in seals(self._database, 1, final):
            before = chain.last
            report.fault = await _check(seal, chain, rows, copies, kept_from)
            if report.fault is not None:
                report.suspect(await self._rows_of(before, seal))
                break
        report.seals, report.rows, report.last = chain.seals, chain.rows, chain.last
        if report.fault is None:
            report.fault = _missing(chain, final, copies)
            async for found in rows.upto(epoch + 1, 0):
                report.unsealed += len(found)
        return report

    async def _rows_of(self, before: Seal | None, seal: Seal) -> list[Mapping[str, Any]]:
        """The rows that are there now where the bad seal's should be, those after the seal `before` it."""
        begin = (before.epoch, before.to_xid, -1) if before is not None else BEGINNING
        async with self._database.transaction() as conn:
            found = await store.rows(conn, begin, store.MOST_ROWS, lines=True)
        return [json.loads(row.line) for row in found if (row.epoch, row.xid) < (seal.epoch, seal.to_xid)]


async def _kept_from(conn: AsyncConnection) -> str:
    """The oldest month that is kept, if it was recorded that those before it were dropped; "" if not."""
    oldest = (await partitions.every(conn))[0].begins
    if oldest is None or not await partitions.is_drop_recorded(conn, oldest):
        return ""
    return oldest.strftime("%Y%m")


async def _check(
    seal: Seal, chain: Chain, rows: RowsInOrder, copies: Mapping[int, str], kept_from: str
) -> Fault | None:
    months: dict[str, Rows] = {}
    async for found in rows.upto(seal.epoch, seal.to_xid):
        for row in found:
            months.setdefault(row.month, Rows()).add(row.digest)
    gone = {part.month for part in seal.parts if part.month < kept_from}
    fault = chain.add(seal, months, gone)
    if fault is None and copies.get(seal.number, seal.digest.hex()) != seal.digest.hex():
        return Fault(seal.number, "is another one than was copied outside")
    return fault


def _missing(chain: Chain, final: int, copies: Mapping[int, str]) -> Fault | None:
    """The first seal that ought to follow the last one that is right."""
    if chain.seals < final:
        return Fault(chain.seals + 1, "is missing")
    lost = [number for number in copies if number > chain.seals]
    return Fault(min(lost), "is missing: a copy of it exists") if lost else None
