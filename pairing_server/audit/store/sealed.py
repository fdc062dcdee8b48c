"""Which seals there are, and what is not sealed yet. Making and checking them: audit/store/seals.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.seals import Seal
from pairing_server.audit.store import seals

# More unsealed rows are not counted.
MOST = 10_000


@dataclass(frozen=True, slots=True)
class Unsealed:
    """How many rows are newer than the last seal (MOST at most), and since when the oldest has waited."""

    rows: int
    oldest: datetime | None


async def newest(conn: AsyncConnection, limit: int) -> list[Seal]:
    """The newest seals, the last one first."""
    last = await seals.last(conn)
    if last is None:
        return []
    return list(reversed(await seals.read(conn, max(0, last.number - limit), limit)))


async def unsealed(conn: AsyncConnection, last: Seal | None) -> Unsealed:
    begin = (last.epoch, last.to_xid) if last is not None else (await seals.epoch(conn), 0)
    row = await conn.execute(
        text(
            "SELECT count(*), min(recorded_at) FROM (SELECT a.recorded_at FROM audit_events AS a"
            " WHERE a.epoch = :epoch AND a.xid >= CAST(CAST(:xid AS text) AS xid8)"
            " ORDER BY a.xid LIMIT :most) AS newer"
        ),
        {"epoch": begin[0], "xid": str(begin[1]), "most": MOST},
    )
    return Unsealed(*row.one())


async def of_event(conn: AsyncConnection, seq: int) -> Seal | None:
    """The seal that the event of this number is in."""
    number = await conn.execute(
        text(
            "SELECT s.seal_no FROM audit_events AS a JOIN audit_seals AS s ON s.epoch = a.epoch"
            " AND a.xid >= s.from_xid AND a.xid < s.to_xid WHERE a.seq = :seq"
        ),
        {"seq": seq},
    )
    found = number.scalar_one_or_none()
    return None if found is None else next(iter(await seals.read(conn, found - 1, 1)), None)
