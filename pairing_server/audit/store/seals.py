"""The audit log's seals at rest, and its rows as the lines that are sealed. What a seal is: pairing_server/audit/seals/."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.seals import Part, Seal, parts_as_json, parts_from_json
from pairing_server.audit.store.filters import Filter, matching

# Held by the transaction that seals, until it ends.
_LOCK = 7421001
# So many rows are digested in a tenth of a second; a seal takes no more, except of one transaction.
MOST_ROWS = 10_000
# Beyond every transaction: the end of an epoch.
LAST_XID = 2**64 - 1
# Where a row stands in the order of sealing: epoch, transaction, seq.
Place = tuple[int, int, int]
# More unsealed rows are not counted.
MOST_UNSEALED = 10_000
# Before every row.
BEGINNING: Place = (-1, 0, 0)


def _utc(moment: str) -> str:
    """SQL for the moment as it stands in lines and seals."""
    return f"""to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


# Not a function of the database: a user who can change the rows could change that, too.
_LINE = f"""(SELECT row_to_json(r)::text FROM (SELECT a.seq, a.epoch, a.xid::text AS xid, {_utc("a.recorded_at")} AS recorded_at,
    {_utc("a.occurred_at")} AS occurred_at, a.event_id, a.event, a.severity, a.outcome, a.reason, a.node, a.app_version,
    a.actor_subject AS actor, a.actor_kind, a.auth_method, a.address, a.request_id, a.connection_id, a.pairing_id,
    a.count, a.attrs) AS r)"""
_HASH = f"sha256(convert_to({_LINE}, 'UTF8'))"
_MONTH = "to_char(a.recorded_at AT TIME ZONE 'UTC', 'YYYYMM')"

_EPOCH = text(
    """SELECT pg_get_expr(d.adbin, d.adrelid)::int FROM pg_attrdef AS d
    JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE d.adrelid = 'audit_events'::regclass AND a.attname = 'epoch'"""
)
_SEAL = f"""SELECT seal_no, epoch, from_xid::text, to_xid::text, parts, previous, public_key, signature, node,
    {_utc("sealed_at")} FROM audit_seals"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the log as it is sealed. `line` is empty where it was not asked for; `wanted`: by the filter."""

    epoch: int
    xid: int
    seq: int
    month: str
    digest: bytes
    line: str = ""
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Unsealed:
    """How many rows are newer than the last seal (MOST_UNSEALED at most), and since when the oldest has waited."""

    rows: int
    oldest: datetime | None


async def lock(conn: AsyncConnection) -> None:
    """Seal alone, until the transaction ends. Statements after this one see what others have sealed."""
    await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


async def epoch(conn: AsyncConnection) -> int:
    """The epoch that rows are recorded in now."""
    return int((await conn.execute(_EPOCH)).scalar_one())


async def horizon(conn: AsyncConnection) -> int:
    """No transaction before this one will ever record anything."""
    found = await conn.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))
    return int(found.scalar_one())


async def next_xid(conn: AsyncConnection) -> int:
    """No transaction so far has this id or a later one."""
    found = await conn.execute(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
    return int(found.scalar_one())


async def last(conn: AsyncConnection) -> Seal | None:
    """The newest seal."""
    return next(iter(await newest(conn, 1)), None)


async def read(conn: AsyncConnection, after: int, limit: int) -> list[Seal]:
    """At most so many seals after number `after`, in order."""
    statement = text(f"{_SEAL} WHERE seal_no > :after ORDER BY seal_no LIMIT :limit")
    return [_seal(row) for row in await conn.execute(statement, {"after": after, "limit": limit})]


async def of_month(conn: AsyncConnection, month: str) -> tuple[int, int] | None:
    """The first and the last seal that has rows of the month."""
    statement = text(
        """SELECT min(seal_no), max(seal_no) FROM audit_seals
        WHERE parts @> jsonb_build_array(jsonb_build_object('month', CAST(:month AS text)))"""
    )
    first, final = (await conn.execute(statement, {"month": month})).one()
    return None if first is None else (first, final)


def _seal(row: Sequence[Any]) -> Seal:
    number, epoch, from_xid, to_xid, parts, previous, public_key, signature, node, sealed_at = row
    return Seal(
        number=number,
        epoch=epoch,
        from_xid=int(from_xid),
        to_xid=int(to_xid),
        parts=parts_from_json(parts),
        previous=bytes(previous),
        sealed_at=sealed_at,
        node=node,
        public_key=bytes(public_key),
        signature=bytes(signature),
    )


async def upto(conn: AsyncConnection, epoch: int, begin: int, end: int) -> int:
    """Where a seal that begins there ends: at `end`, or earlier, so that it has no more rows than MOST_ROWS."""
    bounds = {"epoch": epoch, "begin": str(begin), "end": str(end), "most": MOST_ROWS}
    within = "epoch = :epoch AND xid >= CAST(:begin AS text)::xid8 AND xid < CAST(:end AS text)::xid8"
    statement = f"SELECT xid::text FROM audit_events WHERE {within} ORDER BY xid OFFSET :most LIMIT 1"
    found = (await conn.execute(text(statement), bounds)).scalar_one_or_none()
    if found is None:
        return end
    if int(found) > begin:
        return int(found)
    return begin + 1


async def parts(conn: AsyncConnection, epoch: int, begin: int, end: int) -> tuple[tuple[Part, ...], bool]:
    """The rows of these transactions as parts of a seal, and whether there are others than events of seals."""
    statement = text(
        f"""SELECT month, count(*), sha256(string_agg(hash, ''::bytea ORDER BY xid, seq)), bool_or(event <> 'audit.seal')
        FROM (SELECT a.xid, a.seq, a.event, {_MONTH} AS month, {_HASH} AS hash FROM audit_events AS a
            WHERE a.epoch = :epoch AND a.xid >= CAST(:begin AS text)::xid8 AND a.xid < CAST(:end AS text)::xid8) AS each
        GROUP BY month ORDER BY month"""
    )
    rows = (await conn.execute(statement, {"epoch": epoch, "begin": str(begin), "end": str(end)})).all()
    found = tuple(Part(month, count, bytes(digest)) for month, count, digest, _ in rows)
    return found, any(has_others for *_, has_others in rows)


async def now(conn: AsyncConnection) -> str:
    """The database's time, as it stands in a seal."""
    return str((await conn.execute(text(f"SELECT {_utc('clock_timestamp()')}"))).scalar_one())


async def add(conn: AsyncConnection, seal: Seal) -> None:
    statement = text(
        """INSERT INTO audit_seals (seal_no, epoch, from_xid, to_xid, n_rows, parts, digest, previous, sealed_at, node,
            public_key, signature)
        VALUES (:seal_no, :epoch, CAST(:from_xid AS text)::xid8, CAST(:to_xid AS text)::xid8, :n_rows,
            CAST(CAST(:parts AS text) AS jsonb), :digest, :previous, CAST(CAST(:sealed_at AS text) AS timestamptz),
            :node, :public_key, :signature)"""
    )
    values = {
        "seal_no": seal.number,
        "epoch": seal.epoch,
        "from_xid": str(seal.from_xid),
        "to_xid": str(seal.to_xid),
        "n_rows": seal.rows,
        "parts": json.dumps(parts_as_json(seal.parts)),
        "digest": seal.digest,
        "previous": seal.previous,
        "sealed_at": seal.sealed_at,
        "node": seal.node,
        "public_key": seal.public_key,
        "signature": seal.signature,
    }
    await conn.execute(statement, values)


async def rows(
    conn: AsyncConnection, after: Place, limit: int, *, lines: bool = False, which: Filter | None = None
) -> list[Row]:
    """At most so many rows after that place, in the order they are sealed in, whatever `which` says of them."""
    wanted = matching(which or Filter())
    statement = text(
        f"""SELECT epoch, xid::text, seq, month, content, wanted FROM (
            SELECT a.epoch, a.xid, a.seq, {_MONTH} AS month, {_LINE if lines else _HASH} AS content,
                {wanted} AS wanted
            FROM audit_events AS a
            WHERE (a.epoch, a.xid) >= (:epoch, CAST(:xid AS text)::xid8)
              AND (a.epoch, a.xid, a.seq) > (:epoch, CAST(:xid AS text)::xid8, :seq)
            ORDER BY a.epoch, a.xid, a.seq LIMIT :limit) AS each
        ORDER BY epoch, each.xid, seq"""
    )
    values = {"epoch": after[0], "xid": str(after[1]), "seq": after[2], "limit": limit}
    found = []
    for epoch, xid, seq, month, content, hit in await conn.execute(statement, wanted.values | values):
        digest = hashlib.sha256(content.encode()).digest() if lines else bytes(content)
        found.append(Row(epoch, int(xid), seq, month, digest, content if lines else "", bool(hit)))
    return found


async def months(conn: AsyncConnection) -> list[str]:
    """The months that have rows in a seal."""
    statement = (
        "SELECT DISTINCT part->>'month' FROM audit_seals, jsonb_array_elements(parts) AS part ORDER BY 1"
    )
    return list((await conn.execute(text(statement))).scalars())


async def begin_epoch(conn: AsyncConnection, epoch: int) -> None:
    """Record in this epoch from now on. Waits for transactions that are recording; for the table's owner only."""
    await conn.execute(text(f"ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT {int(epoch)}"))


async def newest(conn: AsyncConnection, limit: int) -> list[Seal]:
    """The newest seals, the last one first."""
    statement = text(f"{_SEAL} ORDER BY seal_no DESC LIMIT :limit")
    return [_seal(row) for row in await conn.execute(statement, {"limit": limit})]


async def unsealed(conn: AsyncConnection, last: Seal | None) -> Unsealed:
    begin = (last.epoch, last.to_xid) if last is not None else (await epoch(conn), 0)
    row = await conn.execute(
        text(
            "SELECT count(*), min(recorded_at) FROM (SELECT a.recorded_at FROM audit_events AS a"
            " WHERE a.epoch = :epoch AND a.xid >= CAST(CAST(:xid AS text) AS xid8)"
            " ORDER BY a.xid LIMIT :most) AS newer"
        ),
        {"epoch": begin[0], "xid": str(begin[1]), "most": MOST_UNSEALED},
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
    return None if found is None else next(iter(await read(conn, found - 1, 1)), None)
