"""Sealing the audit log: final rows are sealed, seals are copied outside, a restored log begins a new epoch."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals import LAST_XID, NOTHING, Seal, SealFormatError, SealKey
from pairing_server.audit.seals.memory import SealMemory
from pairing_server.audit.seals.recording_times import SLACK_SECONDS
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.catalogue import AuditTables, isolated
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext

# The digests go to the system log whatever the level of the other messages is.
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

# How many seals one run makes or copies, when it has fallen behind.
_MOST_SEALS = 50
_MOST_COPIES = 500

# Takes a seal's line outside. Raises OSError.
Copy = Callable[[str], Awaitable[None]]


class NotTheOwner(Exception):
    """Only the role that owns the audit log may do that."""


class Sealer:
    """Seals with `key`. `memory`: what this machine remembers of the seals; `copy`: takes them outside, if set."""

    def __init__(
        self, database: Database, audit: AuditLog, key: SealKey, memory: SealMemory, copy: Copy | None = None
    ) -> None:
        self._database = database
        self._audit = audit
        self.key = key
        self.memory = memory
        self.copy = copy
        # When nothing that was final was left to be sealed, and when no seal was left to be copied.
        self.sealed_at: datetime | None = None
        self.copied_at: datetime | None = None

    async def seal(self, context: RequestContext) -> list[Seal]:
        """Seal what is final and not sealed yet; the new seals.

        Several servers may do so at once: one waits for the other, and then finds less to do.
        """
        made: list[Seal] = []
        while len(made) < _MOST_SEALS:
            async with self._database.transaction() as conn:
                new = await self._seal(conn, context)
            if new is None:
                self.sealed_at = context.now
                break
            made.append(new)
            fields = {"number": new.number, "rows": new.rows, "digest": new.digest.hex()}
            log.info("audit sealed", extra=fields)
        if made:
            await asyncio.to_thread(self.memory.remember, made[-1])
        await self.copy_outside(context.now)
        return made

    async def _seal(self, conn: AsyncConnection, context: RequestContext) -> Seal | None:
        await store.lock(conn)
        async with isolated(conn) as tables:
            last = await store.last(tables)
            await self._look_for_remembered(tables)
            epoch = await self._epoch(tables, last)
            begin = last.to_xid if last is not None and last.epoch == epoch else 0
            horizon = await store.horizon(conn)
            if horizon <= begin:
                return None
            span = (epoch, begin, await store.upto(tables, epoch, begin, horizon))
            made = await self._make(tables, span, last)
            if made is not None:
                await self._warn(tables, span, made.number)
        if made is not None:
            await self._record(conn, made, context)
        return made

    async def _warn(self, tables: AuditTables, span: tuple[int, int, int], number: int) -> None:
        """Log what a verification will report."""
        if rows := await store.misdated(tables, *span, SLACK_SECONDS):
            log.error("audit rows sealed with an impossible time", extra={"number": number, "rows": rows})
        if await store.has_other_epochs(tables, span[0]):
            log.error("audit rows of an epoch that no seal covers", extra={"epoch": span[0]})

    async def _look_for_remembered(self, tables: AuditTables) -> None:
        """If the newest seal that this machine remembers is not there, that stays known: the next one takes its place."""
        try:
            newest = self.memory.newest()
            if newest is None or any(lost.digest == newest.digest for lost in self.memory.lost()):
                return
            there = await store.read(tables, newest.number - 1, 1)
            if [seal.digest for seal in there] != [newest.digest]:
                self.memory.miss(newest)
                log.error("audit seal gone from the database", extra={"number": newest.number})
        except (OSError, SealFormatError) as error:
            log.error("audit seal of the data directory cannot be read", extra={"error": str(error)})

    async def _epoch(self, tables: AuditTables, last: Seal | None) -> int:
        """The epoch to seal. Only `rebase` begins another one: after it has sealed the one before to its end."""
        recorded = await store.epoch(tables)
        epoch = last.next_epoch if last is not None else recorded
        if epoch is None or epoch != recorded:
            log.error("audit epoch changed without a rebase", extra={"recorded": recorded, "sealed": epoch})
        return epoch or 0

    async def _make(
        self, tables: AuditTables, span: tuple[int, int, int], last: Seal | None, *, closing: bool = False
    ) -> Seal | None:
        """Seal these transactions of an epoch. None if they have recorded nothing but seals: else each seal would be the
        reason for the next one. An epoch that is `closing` is sealed all the same, but if it has neither seals nor rows."""
        parts, has_other_events = await store.parts(tables, *span)
        if not (parts or last if closing else has_other_events):
            return None
        unsigned = Seal(
            number=last.number + 1 if last else 1,
            epoch=span[0],
            from_xid=span[1],
            to_xid=span[2],
            parts=parts,
            previous=last.digest if last else NOTHING,
            sealed_at=await store.now(tables),
            node=self._audit.node,
        )
        signed = self.key.sign(unsigned)
        await store.add(tables, signed)
        return signed

    async def _record(self, conn: AsyncConnection, made: Seal, context: RequestContext) -> None:
        attributes = {"seal_no": made.number, "n_rows": made.rows, "digest": made.digest.hex()}
        await self._audit.record(conn, self._audit.event("audit.seal", "success", context, **attributes))

    async def rebase(self, context: RequestContext) -> int:
        """Begin a new epoch, in which transaction ids may be lower than before; the old one is sealed to its end. The
        epoch.

        What this machine remembers of later seals is forgotten, since the restore has undone them. Copies outside still
        show them. For the role that owns the table; raises NotTheOwner.
        """
        closing: Seal | None = None
        async with self._database.transaction() as conn:
            await store.lock(conn)
            async with isolated(conn) as tables:
                last = await store.last(tables)
                old = await self._epoch(tables, last)
                # First of all, so that what is recorded here is not part of the old epoch.
                try:
                    await store.begin_epoch(tables, old + 1)
                except DBAPIError as error:
                    if getattr(error.orig, "sqlstate", "") != "42501":
                        raise
                    raise NotTheOwner(
                        "Only the role that owns the tables may do that: set PAIRING_MIGRATE_DATABASE_URL to its URL."
                    ) from None
                begin = last.to_xid if last is not None and last.epoch == old else 0
                if begin < LAST_XID:
                    closing = await self._make(tables, (old, begin, LAST_XID), last, closing=True)
            if closing is not None:
                await self._record(conn, closing, context)
            event = self._audit.event("audit.rebase", "success", context, epoch=old + 1)
            await self._audit.record(conn, event)
        await asyncio.to_thread(self.memory.go_back, closing or last, last.number if last else 0)
        return old + 1

    async def last(self) -> Seal | None:
        """The newest seal. Raises Unavailable."""
        async with self._database.transaction() as conn, isolated(conn) as tables:
            return await store.last(tables)

    async def copy_outside(self, now: datetime) -> None:
        """Copy the seals that have not been copied yet. What fails is tried again next time."""
        if self.copy is None:
            return
        copied = await asyncio.to_thread(self.memory.copied)
        async with self._database.transaction() as conn, isolated(conn) as tables:
            waiting = await store.read(tables, copied, _MOST_COPIES)
        try:
            for seal in waiting:
                await self.copy(seal.line)
                copied = seal.number
            if len(waiting) < _MOST_COPIES:
                self.copied_at = now
        except OSError as error:
            log.error("audit seal not copied outside", extra={"number": copied + 1, "error": str(error)})
        if waiting:
            await asyncio.to_thread(self.memory.note_copied, copied)


async def restored(conn: AsyncConnection) -> bool:
    """Whether transaction ids have begun anew, as after a logical restore: then nothing must be recorded."""
    async with isolated(conn) as tables:
        last = await store.last(tables)
        if last is None or last.epoch != await store.epoch(tables):
            return False
    return await store.next_xid(conn) < last.to_xid


def to_file(path: Path) -> Copy:
    """Copies seals to a file, one a line."""

    def append(line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    async def copy(line: str) -> None:
        await asyncio.to_thread(append, line)

    return copy
