"""The audit log's seals at rest, and its rows as the lines that are sealed. What a seal is: pairing_server/audit/seals/."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.seals import Part, RetentionRow, Seal, parts_as_json, parts_from_json
from pairing_server.audit.store.catalogue import AuditTables
from pairing_server.audit.store.filters import Filter, matching

# Held by the transaction that seals, until it ends.
_LOCK = 7421001
# So many rows are digested in a tenth of a second; a seal takes no more, except of one transaction.
MOST_ROWS = 10_000
# How far rows were read, in the order of sealing: epoch, transaction, and how many rows of that transaction. Not `seq`: the
# tables' owner can give several rows the same.
Place = tuple[int, int, int]
# More unsealed rows are not counted.
MOST_UNSEALED = 10_000
# Before every number of a seal.
FIRST_NUMBER = -(2**63) + 1
_NUMBER = re.compile(r"-?\d+", re.ASCII)


def _utc(moment: str) -> str:
    """SQL for the moment as it stands in lines and seals."""
    return f"""to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


# Not a function of the database: a user who can change the rows could change that, too.
_LINE = f"""(SELECT row_to_json(r)::text FROM (SELECT a.seq, a.epoch, a.xid::text AS xid, {_utc("a.recorded_at")} AS recorded_at,
    {_utc("a.occurred_at")} AS occurred_at, a.event_id, a.event, a.severity, a.outcome, a.reason, a.node, a.app_version,
    a.actor_subject AS actor, a.actor_kind, a.auth_method, a.address, a.request_id, a.connection_id, a.pairing_id,
    a.count, a.attrs) AS r)"""
_HASH = f"sha256(convert_to({_LINE}, 'UTF8'))"
# The times -infinity and infinity are of no month.
_MONTH = "coalesce(nullif(to_char(a.recorded_at AT TIME ZONE 'UTC', 'YYYYMM'), ''), 'none')"
# Unix seconds. Python's datetime has neither all years of PostgreSQL's nor the infinite times.
_SECONDS = """CASE WHEN isfinite(a.recorded_at) THEN CAST(floor(extract(epoch FROM a.recorded_at)) AS bigint)
    WHEN a.recorded_at > clock_timestamp() THEN 4611686018427387904 ELSE -4611686018427387904 END"""

_SEAL = f"""SELECT seal_no, epoch, from_xid::text, to_xid::text, parts, previous, public_key, signature, node,
    {_utc("sealed_at")} FROM @seals"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the log as it is sealed. `line` is empty where it was not asked for; `wanted`: by the filter.

    `recorded_at`: in Unix seconds. `of_seal`: it says that there was sealed.
    """

    epoch: int
    xid: int
    seq: int
    month: str
    recorded_at: int
    digest: bytes
    of_seal: bool = False
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


async def epoch(tables: AuditTables) -> int | None:
    """The epoch that rows are recorded in now; None: the tables' owner has made it something that is no number."""
    statement = """SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d
        JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE d.adrelid = CAST(CAST(:events AS text) AS regclass) AND a.attname = 'epoch'"""
    found = (await tables.execute(statement, {"events": tables.named("audit_events")})).scalar_one_or_none()
    return int(found) if found is not None and _NUMBER.fullmatch(found) else None


async def horizon(conn: AsyncConnection) -> int:
    """No transaction before this one will ever record anything."""
    found = await conn.execute(text(_snapshot("pg_snapshot_xmin")))
    return int(found.scalar_one())


async def next_xid(conn: AsyncConnection) -> int:
    """No transaction so far has this id or a later one."""
    found = await conn.execute(text(_snapshot("pg_snapshot_xmax")))
    return int(found.scalar_one())


def _snapshot(function: str) -> str:
    return f"SELECT CAST(pg_catalog.{function}(pg_catalog.pg_current_snapshot()) AS pg_catalog.text)"


async def last(tables: AuditTables) -> Seal | None:
    """The newest seal."""
    return next(iter(await newest(tables, 1)), None)


async def read(tables: AuditTables, after: int, limit: int) -> list[Seal]:
    """At most so many seals after number `after`, in order."""
    statement = f"{_SEAL} WHERE seal_no > :after ORDER BY seal_no LIMIT :limit"
    return [_seal(row) for row in await tables.execute(statement, {"after": after, "limit": limit})]


async def of_month(tables: AuditTables, month: str) -> tuple[int, int] | None:
    """The first and the last seal that has rows of the month."""
    statement = """SELECT min(seal_no), max(seal_no) FROM @seals
        WHERE parts @> jsonb_build_array(jsonb_build_object('month', CAST(:month AS text)))"""
    first, final = (await tables.execute(statement, {"month": month})).one()
    return None if first is None else (first, final)


def _seal(row: Sequence[Any]) -> Seal:
    number, epoch, from_xid, to_xid, parts, previous, public_key, signature, node, sealed_at = row
    try:
        read = parts_from_json(parts)
    except (KeyError, TypeError, ValueError):
        read = ()  # changed: then the signature is wrong
    return Seal(
        number=number,
        epoch=epoch,
        from_xid=int(from_xid),
        to_xid=int(to_xid),
        parts=read,
        previous=bytes(previous),
        sealed_at=str(sealed_at),
        node=node,
        public_key=bytes(public_key),
        signature=bytes(signature),
    )


async def upto(tables: AuditTables, epoch: int, begin: int, end: int) -> int:
    """Where a seal that begins there ends: at `end`, or earlier, so that it has no more rows than MOST_ROWS."""
    bounds = {"epoch": epoch, "begin": str(begin), "end": str(end), "most": MOST_ROWS}
    within = "a.epoch = :epoch AND a.xid >= CAST(:begin AS text)::xid8 AND a.xid < CAST(:end AS text)::xid8"
    statement = f"SELECT a.xid::text FROM @events AS a WHERE {within} ORDER BY a.xid OFFSET :most LIMIT 1"
    found = (await tables.execute(statement, bounds)).scalar_one_or_none()
    if found is None:
        return end
    if int(found) > begin:
        return int(found)
    return begin + 1


async def parts(tables: AuditTables, epoch: int, begin: int, end: int) -> tuple[tuple[Part, ...], bool]:
    """The rows of these transactions as parts of a seal, and whether there are others than events of seals."""
    statement = f"""SELECT month, count(*), sha256(string_agg(hash, ''::bytea ORDER BY xid, seq, recorded_at)),
            bool_or(event <> 'audit.seal')
        FROM (SELECT a.xid, a.seq, a.recorded_at, a.event, {_MONTH} AS month, {_HASH} AS hash FROM @events AS a
            WHERE a.epoch = :epoch AND a.xid >= CAST(:begin AS text)::xid8 AND a.xid < CAST(:end AS text)::xid8) AS each
        GROUP BY month ORDER BY month"""
    rows = (await tables.execute(statement, {"epoch": epoch, "begin": str(begin), "end": str(end)})).all()
    found = tuple(Part(month, count, bytes(digest)) for month, count, digest, _ in rows)
    return found, any(has_others for *_, has_others in rows)


async def misdated(tables: AuditTables, epoch: int, begin: int, end: int, slack_seconds: int) -> int:
    """How many rows of these transactions are older than those of earlier ones among them, or newer than now."""
    statement = """SELECT count(*) FROM (
            SELECT a.recorded_at, max(a.recorded_at) OVER (ORDER BY a.xid GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                AS earlier
            FROM @events AS a
            WHERE a.epoch = :epoch AND a.xid >= CAST(:begin AS text)::xid8 AND a.xid < CAST(:end AS text)::xid8) AS each
        WHERE recorded_at < earlier - make_interval(secs => :slack)
           OR recorded_at > clock_timestamp() + make_interval(secs => :slack)"""
    values = {"epoch": epoch, "begin": str(begin), "end": str(end), "slack": slack_seconds}
    return int((await tables.execute(statement, values)).scalar_one())


async def has_other_epochs(tables: AuditTables, epoch: int) -> bool:
    """Whether there are rows of later epochs than that, or of earlier ones than the first seal's."""
    statement = """SELECT EXISTS (SELECT FROM @events WHERE epoch > :epoch)
        OR EXISTS (SELECT FROM @events WHERE epoch < (SELECT epoch FROM @seals ORDER BY seal_no LIMIT 1))"""
    return bool((await tables.execute(statement, {"epoch": epoch})).scalar_one())


async def now(tables: AuditTables) -> str:
    """The database's time, as it stands in a seal."""
    return str((await tables.execute(f"SELECT {_utc('clock_timestamp()')}")).scalar_one())


async def add(tables: AuditTables, seal: Seal) -> None:
    statement = """INSERT INTO @seals (seal_no, epoch, from_xid, to_xid, n_rows, parts, digest, previous, sealed_at,
            node, public_key, signature)
        VALUES (:seal_no, :epoch, CAST(:from_xid AS text)::xid8, CAST(:to_xid AS text)::xid8, :n_rows,
            CAST(CAST(:parts AS text) AS jsonb), :digest, :previous, CAST(CAST(:sealed_at AS text) AS timestamptz),
            :node, :public_key, :signature)"""
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
    await tables.execute(statement, values)


async def rows(
    tables: AuditTables, after: Place | None, limit: int, *, lines: bool = False, which: Filter | None = None
) -> list[Row]:
    """At most so many rows after that place (None: from the first row on), in the order they are sealed in, whatever
    `which` says of them."""
    wanted = matching(which or Filter())
    place: dict[str, object] = {}
    if after is not None:
        place = {"epoch": after[0], "xid": str(after[1])}
    statement = f"""SELECT epoch, xid::text, seq, month, seconds, of_seal, content, wanted FROM (
            SELECT a.epoch, a.xid, a.seq, a.recorded_at, {_MONTH} AS month, {_SECONDS} AS seconds,
                a.event = 'audit.seal' AS of_seal,
                {_LINE if lines else _HASH} AS content, {wanted} AS wanted
            FROM @events AS a
            {"WHERE (a.epoch, a.xid) >= (:epoch, CAST(:xid AS text)::xid8)" if place else ""}
            ORDER BY a.epoch, a.xid, a.seq, a.recorded_at LIMIT :limit OFFSET :read) AS each
        ORDER BY epoch, each.xid, seq, recorded_at"""
    values = {**wanted.values, **place, "limit": limit, "read": after[2] if after is not None else 0}
    found = []
    for epoch, xid, seq, month, seconds, of_seal, content, hit in await tables.execute(statement, values):
        digest = hashlib.sha256(content.encode()).digest() if lines else bytes(content)
        line = content if lines else ""
        found.append(Row(epoch, int(xid), seq, month, seconds, digest, of_seal, line, bool(hit)))
    return found


async def retention_rows(tables: AuditTables) -> list[RetentionRow]:
    """The rows that say which partitions were dropped, in the order they are sealed in."""
    statement = f"""SELECT a.epoch, a.xid::text, a.seq, {_SECONDS}, {_HASH}, a.attrs FROM @events AS a
        WHERE a.event = 'audit.retention' ORDER BY a.epoch, a.xid, a.seq, a.recorded_at"""
    return [
        RetentionRow.parse((epoch, int(xid)), seq, seconds, bytes(digest), attrs)
        for epoch, xid, seq, seconds, digest, attrs in await tables.execute(statement)
    ]


async def months(tables: AuditTables) -> list[str]:
    """The months that have rows in a seal."""
    statement = "SELECT DISTINCT part->>'month' FROM @seals, jsonb_array_elements(parts) AS part ORDER BY 1"
    return list((await tables.execute(statement)).scalars())


async def begin_epoch(tables: AuditTables, epoch: int) -> None:
    """Record in this epoch from now on. Waits for transactions that are recording; for the table's owner only."""
    await tables.execute(f"ALTER TABLE @events ALTER COLUMN epoch SET DEFAULT {int(epoch)}")


async def newest(tables: AuditTables, limit: int) -> list[Seal]:
    """The newest seals, the last one first."""
    statement = f"{_SEAL} ORDER BY seal_no DESC LIMIT :limit"
    return [_seal(row) for row in await tables.execute(statement, {"limit": limit})]


async def unsealed(tables: AuditTables, last: Seal | None) -> Unsealed:
    """Of whatever epoch, but in no seal."""
    after = "WHERE (a.epoch, a.xid) >= (:epoch, CAST(CAST(:xid AS text) AS xid8))" if last is not None else ""
    statement = f"""SELECT count(*), min(greatest(recorded_at, to_timestamp(0))) FROM (
        SELECT a.recorded_at FROM @events AS a {after} ORDER BY a.epoch, a.xid LIMIT :most) AS newer"""
    place = {"epoch": last.epoch, "xid": str(last.to_xid)} if last is not None else {}
    return Unsealed(*(await tables.execute(statement, {**place, "most": MOST_UNSEALED})).one())


async def of_event(tables: AuditTables, seq: int) -> Seal | None:
    """The seal that the event of this number is in."""
    number = await tables.execute(
        """SELECT s.seal_no FROM @events AS a JOIN @seals AS s ON s.epoch = a.epoch AND a.xid >= s.from_xid
            AND a.xid < s.to_xid WHERE a.seq = :seq ORDER BY s.seal_no LIMIT 1""",
        {"seq": seq},
    )
    found = number.scalar_one_or_none()
    return None if found is None else next(iter(await read(tables, found - 1, 1)), None)
