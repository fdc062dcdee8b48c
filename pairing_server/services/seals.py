"""Sealing the audit log, and verifying that it is what was sealed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.seals import (
    NOTHING,
    Chain,
    Fault,
    Report,
    Rows,
    Seal,
    SealFormatError,
    SealKey,
    seal_from_line,
)
from pairing_server.store import partitions
from pairing_server.store import seals as store
from pairing_server.store.seals import Row

if TYPE_CHECKING:
    from pairing_server.services.deps import Caller, Deps

# The digests go to the system log whatever the level of the other messages is.
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

_PAGE = 5000
# How many seals one run of the timer makes or copies, when it has fallen behind.
_MOST_SEALS = 50
_MOST_COPIES = 500
BEGINNING = (-1, 0, 0)

# Takes a seal's line outside. Raises OSError.
Copy = Callable[[str], Awaitable[None]]


@dataclass
class Sealer:
    """Who seals: with which key, what this machine remembers, and where copies go.

    `folder`: where the newest seal is remembered, so that it cannot be taken away unnoticed; None: nowhere.
    """

    key: SealKey
    node: str
    folder: Path | None = None
    copy: Copy | None = None
    trusted: frozenset[bytes] = field(default_factory=frozenset)

    def remembered(self) -> Seal | None:
        """The newest seal that this machine has seen. Raises SealFormatError."""
        if self.folder is None or not (self.folder / "audit-last-seal").exists():
            return None
        return _read_line((self.folder / "audit-last-seal").read_text(encoding="utf-8"))

    def remember(self, seal: Seal) -> None:
        if self.folder is not None and self.folder.is_dir():
            _replace(self.folder / "audit-last-seal", seal.line + "\n")

    def copied(self) -> int:
        """The number of the last seal that was copied from this machine; 0: none."""
        if self.folder is None:
            return 0
        try:
            return int((self.folder / "audit-copied-seal").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def note_copied(self, number: int) -> None:
        if self.folder is not None and self.folder.is_dir():
            _replace(self.folder / "audit-copied-seal", f"{number}\n")


def _read_line(text: str) -> Seal:
    try:
        return seal_from_line(json.loads(text))
    except (ValueError, AttributeError) as error:
        raise SealFormatError(f"no seal: {error}") from None


def _replace(path: Path, text: str) -> None:
    """The file has either the old text or the new one, whatever happens."""
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as fresh:
        fresh.write(text)
        fresh.flush()
        os.fsync(fresh.fileno())
    Path(fresh.name).replace(path)


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


def read_copies(path: Path) -> dict[int, str]:
    """The digests of the seals in a file of copies, by number. Raises OSError, SealFormatError."""
    copies = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                seal = _read_line(line)
                copies[seal.number] = seal.digest.hex()
    return copies


# Sealing


async def seal(deps: Deps, caller: Caller, now: datetime) -> list[Seal]:
    """Seal what is final and not sealed yet; the new seals.

    Several servers may do so at once: one waits for the other, and then finds less to do.
    """
    made: list[Seal] = []
    while len(made) < _MOST_SEALS:
        async with deps.database.transaction() as conn:
            new = await _seal(deps, conn, caller, now)
        if new is None:
            break
        made.append(new)
        log.info("audit seal %d: %d rows, digest %s", new.number, new.rows, new.digest.hex())
    if made:
        await asyncio.to_thread(deps.sealer.remember, made[-1])
    await copy_outside(deps)
    return made


async def _seal(deps: Deps, conn: AsyncConnection, caller: Caller, now: datetime) -> Seal | None:
    await store.lock(conn)
    epoch, last = await store.epoch(conn), await store.last(conn)
    begin = last.to_xid if last is not None and last.epoch == epoch else 0
    horizon = await store.horizon(conn)
    if horizon <= begin:
        return None
    end = await store.upto(conn, epoch, begin, horizon)
    return await make(deps, conn, (epoch, begin, end), last, caller, now)


async def make(
    deps: Deps,
    conn: AsyncConnection,
    span: tuple[int, int, int],
    last: Seal | None,
    caller: Caller,
    now: datetime,
) -> Seal | None:
    """Seal these transactions of an epoch. None if they have recorded nothing but that there was sealed: else
    each seal would be the reason for the next one."""
    parts, tells = await store.parts(conn, *span)
    if not tells:
        return None
    unsigned = Seal(
        number=last.number + 1 if last else 1,
        epoch=span[0],
        from_xid=span[1],
        to_xid=span[2],
        parts=parts,
        previous=last.digest if last else NOTHING,
        sealed_at=await store.now(conn),
        node=deps.sealer.node,
    )
    signed = deps.sealer.key.sign(unsigned)
    await store.add(conn, signed)
    event = deps.audit.event(
        "audit.seal",
        "success",
        caller,
        now,
        seal_no=signed.number,
        n_rows=signed.rows,
        digest=signed.digest.hex(),
    )
    await deps.audit.record(conn, event)
    return signed


class NotTheOwner(Exception):
    """Only the role that owns the audit log may do that."""


async def restored(conn: AsyncConnection) -> bool:
    """Whether transaction ids have begun anew, as after a logical restore: then nothing must be recorded."""
    last = await store.last(conn)
    if last is None or last.epoch != await store.epoch(conn):
        return False
    return await store.next_xid(conn) < last.to_xid


async def rebase(deps: Deps, caller: Caller, now: datetime) -> int:
    """Begin a new epoch, in which transaction ids may be lower than before; the old one is sealed to its end. The epoch.

    For the role that owns the table.
    """
    async with deps.database.transaction() as conn:
        await store.lock(conn)
        old, last = await store.epoch(conn), await store.last(conn)
        # First of all, so that what is recorded here is not part of the old epoch.
        try:
            await store.begin_epoch(conn, old + 1)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") != "42501":
                raise
            raise NotTheOwner(
                "Only the role that owns the tables may do that: set PAIRING_MIGRATE_DATABASE_URL to its URL."
            ) from None
        begin = last.to_xid if last is not None and last.epoch == old else 0
        if begin < store.LAST_XID:
            await make(deps, conn, (old, begin, store.LAST_XID), last, caller, now)
        event = deps.audit.event("audit.rebase", "success", caller, now, epoch=old + 1)
        await deps.audit.record(conn, event)
    return old + 1


async def last(deps: Deps) -> Seal | None:
    """The newest seal. Raises Unavailable."""
    async with deps.database.transaction() as conn:
        return await store.last(conn)


async def copy_outside(deps: Deps) -> None:
    """Take the seals outside that have not been there yet. What fails is tried again next time."""
    sealer = deps.sealer
    if sealer.copy is None:
        return
    copied = await asyncio.to_thread(sealer.copied)
    async with deps.database.transaction() as conn:
        waiting = await store.read(conn, copied, _MOST_COPIES)
    try:
        for each in waiting:
            await sealer.copy(each.line)
            copied = each.number
    except OSError as error:
        log.error("audit seal %d could not be copied outside: %s", copied + 1, error)
    if waiting:
        await asyncio.to_thread(sealer.note_copied, copied)


# Verifying


class _Stream:
    """The rows of the log in the order they are sealed in."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._page: list[Row] = []
        self._next = 0
        self._after = BEGINNING
        self._ended = False

    async def upto(self, epoch: int, xid: int) -> list[Row]:
        """The next rows, as far as they come before that transaction."""
        found: list[Row] = []
        while await self._fill():
            start = self._next
            while self._next < len(self._page):
                row = self._page[self._next]
                if (row.epoch, row.xid) >= (epoch, xid):
                    break
                self._next += 1
            found += self._page[start : self._next]
            if self._next < len(self._page):
                break
        return found

    async def _fill(self) -> bool:
        if self._next < len(self._page):
            return True
        if self._ended:
            return False
        async with self._deps.reading.transaction() as conn:
            self._page = await store.rows(conn, self._after, _PAGE)
        self._next = 0
        self._ended = len(self._page) < _PAGE
        if self._page:
            newest = self._page[-1]
            self._after = (newest.epoch, newest.xid, newest.seq)
        return bool(self._page)


async def verify(
    deps: Deps,
    copies: Mapping[int, str],
    caller: Caller,
    now: datetime,
    trusted: frozenset[bytes] = frozenset(),
) -> Report:
    """Compute every seal anew from the rows that are there. The verification is recorded, too.

    `copies`: digests of seals, by number, from outside; `trusted`: public keys besides our own.
    """
    copies = dict(copies)
    if (remembered := deps.sealer.remembered()) is not None:
        copies.setdefault(remembered.number, remembered.digest.hex())
    report = await _verify(deps, copies, trusted | {deps.sealer.key.public})
    fault = report.fault
    event = deps.audit.event(
        "audit.verify",
        "failure" if fault else "success",
        caller,
        now,
        reason="bad_seal" if fault else None,
        seals=report.seals,
        rows=report.rows,
        first_bad=fault.seal if fault else None,
    )
    async with deps.database.transaction() as conn:
        await deps.audit.record(conn, event)
    return report


async def _verify(deps: Deps, copies: Mapping[int, str], trusted: frozenset[bytes]) -> Report:
    async with deps.reading.transaction() as conn:
        epoch = await store.epoch(conn)
        newest = await store.last(conn)
        oldest = (await partitions.every(conn))[0].begins
        told = oldest is None or await partitions.told_of(conn, oldest)
    kept_from = oldest.strftime("%Y%m") if oldest is not None and told else ""
    report, chain, stream = Report(), Chain(trusted), _Stream(deps)
    while newest is not None and chain.seals < newest.number and report.fault is None:
        async with deps.reading.transaction() as conn:
            page = await store.read(conn, chain.last.number if chain.last else 0, 1000)
        if not page:
            report.fault = Fault(chain.seals + 1, "is missing")
        for seal in page:
            report.fault = await _check(deps, seal, chain, stream, report, copies, kept_from)
            if report.fault is not None:
                break
    report.seals, report.rows, report.last = chain.seals, chain.rows, chain.last
    if report.fault is None:
        lost = [number for number in copies if number > chain.seals]
        if lost:
            report.fault = Fault(min(lost), "is missing: a copy of it exists")
        rest = await stream.upto(epoch + 1, 0)
        report.unsealed = len(rest)
    return report


async def _check(
    deps: Deps,
    seal: Seal,
    chain: Chain,
    stream: _Stream,
    report: Report,
    copies: Mapping[int, str],
    kept_from: str,
) -> Fault | None:
    begin = (chain.last.epoch, chain.last.to_xid) if chain.last else (BEGINNING[0], 0)
    rows: dict[str, Rows] = {}
    for row in await stream.upto(seal.epoch, seal.to_xid):
        rows.setdefault(row.month, Rows()).add(row.digest)
    gone = {part.month for part in seal.parts if part.month < kept_from}
    fault = chain.add(seal, rows, gone)
    if fault is None and copies.get(seal.number, seal.digest.hex()) != seal.digest.hex():
        fault = Fault(seal.number, "is another one than was copied outside")
    if fault is not None:
        await _name_rows(deps, report, begin, seal)
    return fault


async def _name_rows(deps: Deps, report: Report, begin: tuple[int, int], seal: Seal) -> None:
    """Name the rows that are there now where the bad seal's should be."""
    async with deps.reading.transaction() as conn:
        found = await store.rows(conn, (*begin, -1), store.MOST_ROWS, lines=True)
    there = [row for row in found if (row.epoch, row.xid) < (seal.epoch, seal.to_xid)]
    report.suspect([json.loads(row.line) for row in there])
