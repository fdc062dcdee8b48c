"""Every kind of outage of the database: live channels go on, other requests are refused at once, and after it all works again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from harness.fault_proxy import FaultProxy
from pairing_server.db.database import POOL_SIZE
from tests.devices import Account, Answer, Site
from tests.faults.sites import LOGIN, Talk, known_to_be_away, pooled, ready, sessions

Fault = Callable[[FaultProxy], None]
GONE = {"unreachable"}
# Those who wait for an answer notice, or those who wait for one of their connections: whoever gives up first.
SLOW = {"slow", "busy"}
# What it does, and what the server then takes it for.
FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "reset": (FaultProxy.reset, GONE),
    "cut off without a reset": (FaultProxy.blackhole, SLOW),
    "two seconds away": (lambda proxy: proxy.delay(2.0), SLOW),
    "a line of a hundred bytes a second": (lambda proxy: proxy.throttle(100), SLOW),
    "cut in the middle of a statement": (lambda proxy: proxy.cut_after(40), GONE),
}


async def needing_the_database(site: Site, account: Account) -> list[Answer]:
    """The answers to every call that cannot do without it."""
    return await asyncio.gather(
        site.post("/api/generate-pair-code", {"desktop_session_id": "desktop-1"}, account.token),
        site.post("/api/pair-device", {"code": "123456", "mobile_session_id": "mobile-1"}, account.token),
        site.get("/api/pairings", account.token),
        site.get("/api/audit", account.token),
        site.post("/api/auth/login", LOGIN),
        site.post("/api/auth/register", LOGIN),
        site.get("/readyz"),
    )


async def is_well(site: Site, database_url: str, account: Account) -> None:
    """It pairs, holds no unused connection, and none in a transaction."""
    await site.pair(account)
    # What a closed socket leaves to be noted uses a connection, too.
    await site.node.app.settled()
    assert site.node.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    # One that has just been closed, PostgreSQL lets go of a moment later, whatever was under way on it.
    kept = pooled(site)
    open_ones = await sessions(database_url)
    while {session["pid"] for session in open_ones} - kept:
        open_ones = await sessions(database_url)
    assert {session["state"] for session in open_ones} <= {"idle"}


@pytest.mark.parametrize("name", FAULTS)
async def test_live_channels_do_not_notice_and_others_are_told_at_once(
    far: Site, proxy: FaultProxy, database_url: str, name: str
) -> None:
    account = await far.account()
    talk = Talk(*await far.pair(account))
    fault, reasons = FAULTS[name]
    fault(proxy)
    reason = await talk.during(known_to_be_away(far))
    assert reason in reasons
    for answer in await talk.during(needing_the_database(far, account)):
        assert (answer.status, answer.error) == (503, "UNAVAILABLE"), answer
        assert int(answer.headers["Retry-After"]) >= 2
        # Nobody waited for the database: who has asked it is told something else.
        assert answer.body["message"] == "The database is away. Try again in a moment."
    assert answer.body["details"] == {"reasons": [f"database_{reason}"]}
    assert (await far.get("/healthz")).status == 200
    await talk.say(10)
    proxy.heal()
    proxy.forget()
    await talk.during(ready(far))
    await talk.say(10)
    assert talk.heard == talk.sent
    await is_well(far, database_url, account)
    assert [event["reason"] for event in await far.events("db.down")] == [reason]
    [up] = await far.events("db.up")
    assert (up["outcome"], up["reason"]) == ("success", reason)


async def test_nobody_waits_for_a_turn_once_the_database_is_known_to_be_away(
    far: Site, proxy: FaultProxy, database_url: str
) -> None:
    """Whose turn it is may wait for the database until his time is over."""
    account = await far.account()
    turns = [f"codes {account.subject}", f"redeem {account.subject}", "login at 127.0.0.1"]
    async with AsyncExitStack() as held:
        for turn in turns:
            await held.enter_async_context(far.node.backend.locks.of(turn))
        proxy.blackhole()
        while far.node.database.breaker.outage is None:
            await far.get("/readyz")
        for answer in await needing_the_database(far, account):
            assert (answer.status, answer.error) == (503, "UNAVAILABLE"), answer
    proxy.heal()
    proxy.forget()
    await ready(far)
    await is_well(far, database_url, account)


async def test_a_pool_that_is_used_up_counts_as_away_and_nothing_leaks(far: Site, database_url: str) -> None:
    """Statements that hang hold every connection, so that no other request and no timer gets one."""
    account = await far.account()
    talk = Talk(*await far.pair(account))
    async with locked(database_url, "users"):
        waiting = [asyncio.ensure_future(far.get("/api/pairings", account.token)) for _ in range(60)]
        assert await talk.during(found_away_by_them(far)) in SLOW
        assert {answer.status for answer in await talk.during(all_of(waiting))} == {503}
    await talk.during(ready(far))
    await is_well(far, database_url, account)


async def test_a_crowd_that_uses_the_pool_up_is_no_outage(far: Site) -> None:
    """Some requests time out and others are served: a request that comes then is tried, not refused at once."""
    account = await far.account()
    database = far.node.database
    async with AsyncExitStack() as crowd:
        for _ in range(POOL_SIZE):
            await crowd.enter_async_context(database.engine.connect())
        waiting = [asyncio.ensure_future(far.get("/api/pairings", account.token)) for _ in range(60)]
        # Those who have a connection get done what they want all the while, as in a crowd.
        while not all(future.done() for future in waiting):
            database.breaker.worked()
            await asyncio.wait(waiting, timeout=0.2)
        assert {future.result().status for future in waiting} == {503}
    assert await far.events("db.down") == []
    assert (await far.get("/api/pairings", account.token)).status == 200


async def found_away_by_them(site: Site) -> str:
    """Return once those who ask have found out that the database is away; why it is. Asks it nothing itself."""
    while site.node.database.breaker.outage is None:
        await site.get("/healthz")
    return site.node.database.breaker.outage.reason


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Somebody has locked the table."""
    other = await asyncpg.connect(url)
    try:
        async with other.transaction():
            await other.execute(f"LOCK TABLE {table}")
            yield
    finally:
        await other.close()


async def all_of(futures: Iterable[asyncio.Future[Answer]]) -> list[Answer]:
    return await asyncio.gather(*futures)


async def test_one_failure_among_successes_is_no_outage(far: Site, database_url: str) -> None:
    account = await far.account()
    for _ in range(5):
        killer = await asyncpg.connect(database_url)
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await killer.close()
        assert (await far.get("/api/pairings", account.token)).status == 200
    assert await far.events("db.down") == []
