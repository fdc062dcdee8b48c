"""Attempts at rest: those that are made at the same time are counted one after the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.database import Database
from pairing_server.store import rate_limits
from pairing_server.store.rate_limits import Bucket

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_a_bucket_is_made_empty_when_it_is_first_asked_for(conn: AsyncConnection) -> None:
    assert await rate_limits.read(conn, "login_user", "alice") is None
    [bucket] = await rate_limits.lock(conn, [("login_user", "alice")], NOW)
    assert bucket == Bucket("login_user", "alice", (), 0, None)
    assert await rate_limits.read(conn, "login_user", "alice") == bucket


async def test_a_bucket_comes_back_as_it_was_written(conn: AsyncConnection) -> None:
    [bucket] = await rate_limits.lock(conn, [("login_user", "alice")], NOW)
    times = (NOW - timedelta(seconds=1, microseconds=1), NOW)
    full = replace(bucket, times=times, level=3, locked_until=NOW + timedelta(hours=1))
    await rate_limits.put(conn, full)
    assert await rate_limits.lock(conn, [("login_user", "alice")], NOW) == [full]


async def test_buckets_come_in_the_order_asked_for(conn: AsyncConnection) -> None:
    keys = [("b", "2"), ("a", "9"), ("b", "1"), ("a", "9")]
    found = await rate_limits.lock(conn, keys, NOW)
    assert [(bucket.kind, bucket.key) for bucket in found] == keys


async def test_the_same_key_of_another_kind_is_another_bucket(conn: AsyncConnection) -> None:
    [bucket] = await rate_limits.lock(conn, [("login_user", "alice")], NOW)
    await rate_limits.put(conn, replace(bucket, times=(NOW,)))
    [other] = await rate_limits.lock(conn, [("redeem_user", "alice")], NOW)
    assert other.times == ()


async def test_attempts_made_at_once_are_all_counted(database: Database) -> None:
    async def one(number: int) -> None:
        async with database.transaction() as conn:
            [bucket] = await rate_limits.lock(conn, [("login_user", "alice")], NOW)
            at = NOW + timedelta(seconds=number)
            await rate_limits.put(conn, replace(bucket, times=(*bucket.times, at)))

    await asyncio.gather(*(one(number) for number in range(12)))
    async with database.transaction() as conn:
        found = await rate_limits.read(conn, "login_user", "alice")
    assert found is not None
    assert len(set(found.times)) == 12


async def test_requests_for_the_same_buckets_in_another_order_do_not_block_each_other(
    database: Database,
) -> None:
    keys = [("a", "1"), ("a", "2"), ("b", "1")]

    async def one(number: int) -> None:
        async with database.transaction() as conn:
            order = keys[number % 3 :] + keys[: number % 3]
            for bucket in await rate_limits.lock(conn, order[::-1] if number % 2 else order, NOW):
                await rate_limits.put(conn, replace(bucket, times=(*bucket.times, NOW)))

    await asyncio.gather(*(one(number) for number in range(12)))
    async with database.transaction() as conn:
        assert [len(bucket.times) for bucket in await rate_limits.lock(conn, keys, NOW)] == [12, 12, 12]


async def test_an_act_that_fails_counts_nothing(database: Database) -> None:
    class Failed(Exception):
        pass

    try:
        async with database.transaction() as conn:
            [bucket] = await rate_limits.lock(conn, [("login_user", "alice")], NOW)
            await rate_limits.put(conn, replace(bucket, times=(NOW,)))
            raise Failed
    except Failed:
        pass
    async with database.transaction() as conn:
        assert await rate_limits.read(conn, "login_user", "alice") is None


async def test_buckets_that_nothing_touches_are_forgotten(conn: AsyncConnection) -> None:
    await rate_limits.lock(conn, [("a", "old"), ("a", "touched")], NOW)
    await rate_limits.lock(conn, [("a", "touched")], NOW + timedelta(seconds=1))
    assert await rate_limits.prune(conn, NOW) == 0
    assert await rate_limits.prune(conn, NOW + timedelta(seconds=1)) == 1
    assert await rate_limits.read(conn, "a", "old") is None
    assert await rate_limits.read(conn, "a", "touched") is not None
