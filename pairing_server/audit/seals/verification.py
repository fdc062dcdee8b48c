"""Verifying that the audit log is what was sealed.

Every row that is there is looked at: it is in a seal, it waits for the next one, or it is reported. Nothing that is read
here depends on what the tables' owner may define: see audit/store/catalogue.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals import (
    Chain,
    DroppedMonths,
    Fault,
    RecordingTimes,
    Report,
    Rows,
    Seal,
    Trusted,
)
from pairing_server.audit.seals.chain import named
from pairing_server.audit.seals.sealed_lines import END, RowsInOrder, seals
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.store import catalogue
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.catalogue import isolated
from pairing_server.audit.store.seals import Row
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext

# Rows that have waited longer for their seal are counted. A server seals every minute.
LATE_SECONDS = 3600


class Verifier:
    """Verifies the log in the database against the seals there, and these against what the sealer's machine remembers.

    `trusted`: public keys besides the sealer's. `days`: how old rows must be before they are dropped.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        sealer: Sealer,
        trusted: Trusted | None = None,
        days: int = 30,
    ) -> None:
        self._database = database
        self._audit = audit
        self._sealer = sealer
        self._trusted = {sealer.key.public: None, **(trusted or {})}
        self.days = days

    async def verify(
        self, context: RequestContext, copies: Mapping[int, str], trusted: Trusted | None = None
    ) -> Report:
        """Compute every seal anew from the rows that are there. The verification is recorded, too.

        `copies`: digests of seals, by number, from outside; `trusted`: public keys besides those of the verifier. Raises
        SealFormatError, NotATable.
        """
        copies = {**self._sealer.memory.known(), **copies}
        run = _Run(self._database, {**self._trusted, **(trusted or {})}, copies, self.days)
        report = await run.report()
        event = self._audit.event(
            "audit.verify",
            "success" if report.right else "failure",
            context,
            reason="bad_seal" if report.fault else None if report.right else "irregular",
            seals=report.seals,
            rows=report.rows,
            excused=sum(excuse.rows for excuse in report.excused),
            pending=report.unsealed,
            reported=report.n_strays,
            first_bad=report.fault.seal if report.fault else None,
        )
        async with self._database.transaction() as conn:
            await self._audit.record(conn, event)
        return report


class _Run:
    """One verification. `copies`: digests of seals, by number."""

    def __init__(self, database: Database, trusted: Trusted, copies: Mapping[int, str], days: int) -> None:
        self._database = database
        self._copies = copies
        self._days = days
        self._chain = Chain(trusted)
        self._rows = RowsInOrder(database)
        self._times = RecordingTimes()
        self._report = Report()

    async def report(self) -> Report:
        report, chain = self._report, self._chain
        async with self._database.transaction() as conn, isolated(conn) as tables:
            report.irregularities = await catalogue.irregularities(tables)
        try:
            await self._look_at_all()
        except DBAPIError as error:
            report.irregularities = [*report.irregularities, f"the log cannot be read: {error.orig}"]
        report.last, report.rows = chain.last, chain.rows
        report.seals = chain.seals - report.unexcused[0] - sum(excuse.seals for excuse in report.excused)
        return report

    async def _look_at_all(self) -> None:
        report, chain = self._report, self._chain
        async with self._database.transaction() as conn, isolated(conn) as tables:
            epoch, newest = await store.epoch(tables), await store.last(tables)
            dropped = DroppedMonths(await store.retention_rows(tables), self._days)
        final, goes_on = (newest.number, newest.next_epoch) if newest is not None else (0, epoch)
        if epoch != goes_on or epoch is None:
            report.irregularities = [
                *report.irregularities,
                f"audit_events.epoch is filled with {epoch}, and the seals go on in epoch {goes_on}",
            ]
        async for seal in seals(self._database, store.FIRST_NUMBER, max(final, 0)):
            before = chain.last
            report.fault = await self._check(seal, dropped)
            if report.fault is not None:
                report.suspect(await self._rows_of(before, seal))
                report.unseen = final - seal.number
                break
        if report.fault is None:
            report.fault = _missing(chain, final, self._copies)
            await self._look_at_unsealed(goes_on)
        report.excused, report.unexcused = dropped.excuses, dropped.unexcused
        first, fault = dropped.first_unexcused, report.fault
        if first is not None and (fault is None or (first < fault.seal and not dropped.undecided)):
            report.fault = Fault(first, dropped.why(first))
            report.suspects, report.n_suspects = [], 0

    async def _check(self, seal: Seal, dropped: DroppedMonths) -> Fault | None:
        """What is wrong with the seal, but for months of which no row is there: `dropped` learns of these."""
        months: dict[str, Rows] = {}
        kept: list[Row] = []
        async for found in self._rows.upto(seal.epoch, seal.to_xid):
            for row in found:
                months.setdefault(row.month, Rows()).add(row.digest)
            kept += found
        missing = {part.month for part in seal.parts if part.month not in months}
        if (fault := self._chain.add(seal, months, missing)) is not None:
            return fault
        if self._copies.get(seal.number, seal.digest.hex()) != seal.digest.hex():
            return Fault(seal.number, "is another one than was copied outside")
        dropped.add(seal, missing, {row.digest for row in kept})
        for row in kept:
            await self._look_at_time(row, seal.sealed_seconds, f"in seal {seal.number}")
            if not row.of_seal and row.recorded_at < seal.sealed_seconds - LATE_SECONDS:
                self._report.late += 1
        return None

    async def _look_at_time(self, row: Row, until: float, where: str) -> bool:
        """Report the row if its time is impossible. Whether it is possible."""
        what = self._times.fault((row.epoch, row.xid), row.recorded_at, until)
        if what is not None:
            await self._report_stray(row, f"{where}, {what}")
        return what is None

    async def _look_at_unsealed(self, epoch: int | None) -> None:
        """Count the rows after the last seal that wait for the next one, which is of that epoch, and report the others."""
        report = self._report
        async for found in self._rows.upto(*END):
            # After the rows have been read: the log goes on meanwhile.
            async with self._database.transaction() as conn, isolated(conn) as tables:
                end = await store.next_xid(conn)
                now = datetime.fromisoformat(await store.now(tables)).timestamp()
            for row in found:
                if row.epoch != epoch:
                    await self._report_stray(row, f"is of epoch {row.epoch}, which no seal will cover")
                elif row.xid >= end:
                    await self._report_stray(
                        row, f"is of transaction {row.xid}, which has not been assigned yet"
                    )
                elif await self._look_at_time(row, now, "in no seal yet"):
                    report.unsealed += 1
                    if report.unsealed_since is None or row.recorded_at < report.unsealed_since:
                        report.unsealed_since = row.recorded_at

    async def _report_stray(self, row: Row, what: str) -> None:
        if not self._report.stray(what):
            return
        lines = await self._lines((row.epoch, row.xid, 0))
        name = next((named(line) for line, digest in lines if digest == row.digest), f"seq {row.seq}")
        self._report.strays[-1] = f"{name}: {what}"

    async def _rows_of(self, before: Seal | None, seal: Seal) -> list[Mapping[str, Any]]:
        """The rows that are there now where the bad seal's should be, those after the seal `before` it."""
        found = await self._lines((before.epoch, before.to_xid, 0) if before is not None else None)
        lines = [line for line, _ in found]
        return [line for line in lines if (line["epoch"], int(line["xid"])) < (seal.epoch, seal.to_xid)]

    async def _lines(self, after: store.Place | None) -> list[tuple[Mapping[str, Any], bytes]]:
        async with self._database.transaction() as conn, isolated(conn) as tables:
            found = await store.rows(tables, after, store.MOST_ROWS, lines=True)
        return [(json.loads(row.line), row.digest) for row in found]


def _missing(chain: Chain, final: int, copies: Mapping[int, str]) -> Fault | None:
    """The first seal that ought to follow the last one that is right."""
    if chain.seals < final:
        return Fault(chain.seals + 1, "is missing")
    lost = [number for number in copies if number > chain.seals]
    return Fault(min(lost), "is missing: a copy of it exists") if lost else None
