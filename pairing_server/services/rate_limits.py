"""Rate limits that hold across servers and restarts, counted in the database; and a lock for each key in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import Unavailable
from pairing_server.request_context import RequestContext
from pairing_server.security.limits import Count, Policy, charge, wait
from pairing_server.store import rate_limits as store
from pairing_server.store.audit_events import Event
from pairing_server.store.rate_limits import Bucket


@dataclass(frozen=True, slots=True)
class LimitKey:
    """One limit: `kind` names it, `key` is the user or address that it counts. `binding` False: it counts and refuses nothing.

    `except_own`: it refuses everything but the codes of the user's own account.
    """

    kind: str
    key: str
    policy: Policy
    binding: bool = True
    except_own: bool = False

    @property
    def mode(self) -> str:
        return "except_own" if self.except_own else "binding" if self.binding else "counted"


@dataclass(frozen=True, slots=True)
class Lockout:
    """A limit has just locked its key."""

    limit: LimitKey
    until: datetime


def lockout_event(audit: AuditLog, lockout: Lockout, context: RequestContext) -> Event:
    """That a limit has just locked its key."""
    return audit.event(
        "auth.lockout", "denied", context, scope=lockout.limit.kind, until=lockout.until.isoformat()
    )


class KeyedLock:
    """A lock for each key, in this process, which `at_once` callers may hold.

    A request that waits for a locked row holds one of the few database connections; one that waits here holds none.
    """

    def __init__(self, check: Callable[[], None], max_waiting: int = 100, at_once: int = 1) -> None:
        """`check` raises Unavailable while waiting is pointless."""
        self._check = check
        self._max_waiting = max_waiting
        self._at_once = at_once
        self._locks: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Hold the key's lock. Raises Unavailable if too many wait for it already, or as `check` does."""
        self._check()
        lock, waiting = self._locks.get(key, (asyncio.Semaphore(self._at_once), 0))
        if waiting >= self._max_waiting:
            raise Unavailable("Too many of your requests are waiting. Send one after the other.")
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            _, waiting = self._locks[key]
            if waiting > 1:
                self._locks[key] = (lock, waiting - 1)
            else:
                del self._locks[key]


class HeldLimits:
    """The limits of one act, locked until its transaction ends, so that acts at once are counted in turn."""

    def __init__(self, conn: AsyncConnection, limits: Sequence[LimitKey], buckets: Sequence[Bucket]) -> None:
        self._conn = conn
        self._held = list(zip(limits, buckets, strict=True))

    @property
    def locked_until(self) -> datetime | None:
        """The end of the last lock of any of them."""
        return max((b.locked_until for _, b in self._held if b.locked_until), default=None)

    def wait(self, now: datetime) -> tuple[float, str]:
        """Seconds until the act is allowed (0: now), and the kind of the limit that decides it."""
        waits = [(wait(_count(b), c.policy, now), c.kind) for c, b in self._held if c.binding]
        return max(waits, default=(0.0, ""))

    async def charge(self, now: datetime) -> list[Lockout]:
        """Count the act everywhere. The limits that it has used up and that lock."""
        locked = []
        for place, (limit, bucket) in enumerate(self._held):
            count = charge(_count(bucket), limit.policy, now)
            charged = replace(bucket, times=count.times, level=count.level, locked_until=count.locked_until)
            await store.put(self._conn, charged)
            self._held[place] = (limit, charged)
            if count.locked_until is not None and count.locked_until != bucket.locked_until:
                locked.append(Lockout(limit, count.locked_until))
        return locked

    def used_up(self, now: datetime) -> list[Lockout]:
        """The limits without a lock of their own that allow nothing more for now."""
        waits = [(limit, wait(_count(bucket), limit.policy, now)) for limit, bucket in self._held]
        return [Lockout(limit, now + timedelta(seconds=seconds)) for limit, seconds in waits if seconds]

    async def take_back(self, at: datetime) -> None:
        """The act counted at `at` does not count after all; another one of the same moment does."""
        for _, bucket in self._held:
            if at in bucket.times:
                place = bucket.times.index(at)
                kept = bucket.times[:place] + bucket.times[place + 1 :]
                await store.put(self._conn, replace(bucket, times=kept))


def _count(bucket: Bucket) -> Count:
    return Count(bucket.times, bucket.level, bucket.locked_until)


async def locked_until(conn: AsyncConnection, limit: LimitKey) -> datetime | None:
    """Until when the limit locks, or has locked last; without holding it."""
    bucket = await store.read(conn, limit.kind, limit.key)
    return bucket.locked_until if bucket else None


async def hold(conn: AsyncConnection, limits: Sequence[LimitKey], now: datetime) -> HeldLimits:
    """Lock these limits until the transaction ends."""
    buckets = await store.lock(conn, [(limit.kind, limit.key) for limit in limits], now)
    return HeldLimits(conn, limits, buckets)


@asynccontextmanager
async def uncounted_if_unavailable(
    database: Database, limits: Sequence[LimitKey], at: datetime
) -> AsyncIterator[None]:
    """Take back what was counted at that moment if the server cannot do what is done within: if that raises Unavailable."""
    try:
        yield
    except Unavailable:
        # While the database is away it stays, and is over with its window.
        with suppress(Unavailable):
            async with database.transaction() as conn:
                await (await hold(conn, limits, at)).take_back(at)
        raise
