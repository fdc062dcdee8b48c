"""Sealing the audit log: what is final is sealed, the seals are copied outside, a restored log begins a new epoch."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.seals import NOTHING, Seal
from pairing_server.audit.store import seals as store

if TYPE_CHECKING:
    from pairing_server.request_context import RequestContext
    from pairing_server.services.deps import Deps

# The digests go to the system log whatever the level of the other messages is.
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)

# How many seals one run of the timer makes or copies, when it has fallen behind.
_MOST_SEALS = 50
_MOST_COPIES = 500


class NotTheOwner(Exception):
    """Only the role that owns the audit log may do that."""


async def seal(deps: Deps, context: RequestContext) -> list[Seal]:
    """Seal what is final and not sealed yet; the new seals.

    Several servers may do so at once: one waits for the other, and then finds less to do.
    """
    made: list[Seal] = []
    while len(made) < _MOST_SEALS:
        async with deps.database.transaction() as conn:
            new = await _seal(deps, conn, context)
        if new is None:
            break
        made.append(new)
        log.info("audit seal %d: %d rows, digest %s", new.number, new.rows, new.digest.hex())
    if made:
        await asyncio.to_thread(deps.sealer.remember, made[-1])
    await copy_outside(deps)
    return made


async def _seal(deps: Deps, conn: AsyncConnection, context: RequestContext) -> Seal | None:
    await store.lock(conn)
    epoch, last = await store.epoch(conn), await store.last(conn)
    begin = last.to_xid if last is not None and last.epoch == epoch else 0
    horizon = await store.horizon(conn)
    if horizon <= begin:
        return None
    end = await store.upto(conn, epoch, begin, horizon)
    return await _make(deps, conn, (epoch, begin, end), last, context)


async def _make(
    deps: Deps,
    conn: AsyncConnection,
    span: tuple[int, int, int],
    last: Seal | None,
    context: RequestContext,
    *,
    closing: bool = False,
) -> Seal | None:
    """Seal these transactions of an epoch. None if they have recorded nothing but that there was sealed: else
    each seal would be the reason for the next one. Of an epoch that is `closing` nothing is left out."""
    parts, tells = await store.parts(conn, *span)
    if not (parts if closing else tells):
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
        context,
        seal_no=signed.number,
        n_rows=signed.rows,
        digest=signed.digest.hex(),
    )
    await deps.audit.record(conn, event)
    return signed


async def restored(conn: AsyncConnection) -> bool:
    """Whether transaction ids have begun anew, as after a logical restore: then nothing must be recorded."""
    last = await store.last(conn)
    if last is None or last.epoch != await store.epoch(conn):
        return False
    return await store.next_xid(conn) < last.to_xid


async def rebase(deps: Deps, context: RequestContext) -> int:
    """Begin a new epoch, in which transaction ids may be lower than before; the old one is sealed to its end. The epoch.

    What this machine remembers of later seals is forgotten: they were lost with what was restored over. Copies
    outside still show them. For the role that owns the table.
    """
    closing: Seal | None = None
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
            closing = await _make(deps, conn, (old, begin, store.LAST_XID), last, context, closing=True)
        event = deps.audit.event("audit.rebase", "success", context, epoch=old + 1)
        await deps.audit.record(conn, event)
    await asyncio.to_thread(deps.sealer.go_back, closing or last, last.number if last else 0)
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
