"""What is counted against a user or an address, at rest. The rules are security/limits.py's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ARRAY, DateTime, Row, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import attempts


@dataclass(frozen=True, slots=True)
class Bucket:
    """What has been counted for one `key` in one `kind`; `times` oldest first."""

    kind: str
    key: str
    times: tuple[datetime, ...]
    level: int
    locked_until: datetime | None


_BUCKET = (attempts.c.kind, attempts.c.key, attempts.c.times, attempts.c.level, attempts.c.locked_until)


def _bucket(row: Row[str, str, list[datetime], int, datetime | None]) -> Bucket:
    return Bucket(row.kind, row.key, tuple(row.times), row.level, row.locked_until)


async def lock(conn: AsyncConnection, keys: Sequence[tuple[str, str]], now: datetime) -> list[Bucket]:
    """The buckets of these (kind, key), made if missing, in the order given.

    They stay locked until the transaction ends, so that attempts at the same time are counted one
    after the other. Rows are taken in one order everywhere, so two callers never wait for each other.
    """
    statement = insert(attempts).values(
        [
            {
                "kind": kind,
                "key": key,
                "times": literal([], ARRAY(DateTime(timezone=True))),
                "touched_at": now,
            }
            for kind, key in sorted(set(keys))
        ]
    )
    rows = await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[attempts.c.kind, attempts.c.key],
            set_={"touched_at": statement.excluded.touched_at},
        ).returning(*_BUCKET)
    )
    found = {(row.kind, row.key): _bucket(row) for row in rows}
    return [found[key] for key in keys]


async def put(conn: AsyncConnection, bucket: Bucket) -> None:
    """Write a bucket back that `lock` has given."""
    await conn.execute(
        update(attempts)
        .where(attempts.c.kind == bucket.kind, attempts.c.key == bucket.key)
        .values(times=list(bucket.times), level=bucket.level, locked_until=bucket.locked_until)
    )


async def read(conn: AsyncConnection, kind: str, key: str) -> Bucket | None:
    """The bucket as it stands, without a lock."""
    statement = select(*_BUCKET).where(attempts.c.kind == kind, attempts.c.key == key)
    row = (await conn.execute(statement)).one_or_none()
    return None if row is None else _bucket(row)


async def full(conn: AsyncConnection, kinds: Iterable[str], now: datetime, limit: int = 1000) -> list[Bucket]:
    """Buckets that may lock their key: those with a lock that lasts, and the fullest of the others."""
    statement = (
        select(*_BUCKET)
        .where(
            attempts.c.kind.in_(list(kinds)),
            or_(attempts.c.locked_until > now, func.cardinality(attempts.c.times) >= 1),
        )
        .order_by(
            (func.coalesce(attempts.c.locked_until, now) > now).desc(),
            func.cardinality(attempts.c.times).desc(),
        )
        .limit(limit)
    )
    return [_bucket(row) for row in await conn.execute(statement)]


async def forget(conn: AsyncConnection, kind: str, key: str) -> bool:
    """Forget what is counted for this key. False if nothing is."""
    statement = delete(attempts).where(
        attempts.c.kind == kind,
        attempts.c.key == key,
        or_(attempts.c.locked_until.is_not(None), func.cardinality(attempts.c.times) > 0),
    )
    return (await conn.execute(statement)).rowcount > 0


async def prune(conn: AsyncConnection, untouched_since: datetime) -> int:
    """Forget buckets that nothing has touched since then. The number forgotten."""
    return (await conn.execute(delete(attempts).where(attempts.c.touched_at < untouched_since))).rowcount
