"""The channels' settings documents at rest. What is in them is the relay's business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.raw_connection import Fetch
from pairing_server.db.tables import channel_settings as t
from pairing_server.db.tables import pairings


@dataclass(frozen=True, slots=True)
class Kept:
    """One channel's document at `rev`. `epoch`: the life of the channel that wrote it."""

    pairing_id: UUID
    epoch: str
    rev: int
    document: bytes


_KEEP = """
INSERT INTO channel_settings (pairing_id, epoch, rev, document)
SELECT given.*
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[]) AS given(pairing_id, epoch, rev, document)
JOIN pairings ON pairings.id = given.pairing_id AND pairings.ended_at IS NULL
ORDER BY given.pairing_id
ON CONFLICT (pairing_id) DO UPDATE
SET epoch = excluded.epoch, rev = excluded.rev, document = excluded.document
WHERE (channel_settings.rev, channel_settings.epoch) < (excluded.rev, excluded.epoch)
"""


async def keep(fetch: Fetch, documents: Sequence[Kept]) -> None:
    """Write the documents of live pairings, in one statement that may be sent twice.

    Of two servers that write one pairing's, the higher `rev` stays, of equal ones the higher epoch: which
    comes first makes no difference. Rows are taken in one order everywhere, so two never wait for each other.
    """
    columns = list(
        zip(*((kept.pairing_id, kept.epoch, kept.rev, kept.document) for kept in documents), strict=True)
    )
    if columns:
        await fetch(_KEEP, *columns)


async def of_pairing(conn: AsyncConnection, pairing_id: UUID) -> Kept | None:
    """What has been kept for the pairing."""
    statement = select(t.c.pairing_id, t.c.epoch, t.c.rev, t.c.document).where(t.c.pairing_id == pairing_id)
    row = (await conn.execute(statement)).one_or_none()
    return None if row is None else Kept(*row)


async def forget_ended(conn: AsyncConnection, ended_since: datetime) -> int:
    """Delete the documents of pairings that have ended since then. The number deleted."""
    ended = select(pairings.c.id).where(pairings.c.ended_at >= ended_since)
    return (await conn.execute(delete(t).where(t.c.pairing_id.in_(ended)))).rowcount
