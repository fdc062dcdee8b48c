"""Where a ws token works once, no replay of it works, on whichever server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.store import logins
from tests.conftest import StartNode
from tests.devices import Site
from tests.websocket.raw import RawSocket

# Not pg_stat_activity: within a transaction that always says the same.
_WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"


@pytest.fixture
def two(start_node: StartNode) -> tuple[Site, Site]:
    return start_node(ws_token_single_use=True), start_node(ws_token_single_use=True)


async def test_of_fifty_replays_at_once_on_two_servers_one_opens(two: tuple[Site, Site]) -> None:
    account = await two[0].account()
    token = await two[0].ws_token(account, "desktop")
    sockets = await asyncio.gather(*(two[n % 2].open(token) for n in range(50)))
    first = await asyncio.gather(*(socket.receive() for socket in sockets))
    assert sorted(message["type"] for message in first) == ["connected"] + ["error"] * 49
    assert {message["code"] for message in first if message["type"] == "error"} == {"INVALID_TOKEN"}
    refused = [s for s, message in zip(sockets, first, strict=True) if message["type"] == "error"]
    assert {await socket.closed() for socket in refused} == {4401}
    for site in two:
        await site.node.audit.flush(system(utcnow()), last=True)
    async with two[0].node.database.transaction() as conn:
        reused = await conn.exec_driver_sql(
            "SELECT sum(count) FROM audit_events WHERE event = 'auth.token_reuse'"
        )
        assert reused.scalar_one() == 49
    reasons = {event["reason"] for event in await two[0].events("auth.token_rejected")}
    assert reasons == {"replayed"}


async def test_each_connection_and_each_refresh_needs_a_fresh_token(two: tuple[Site, Site]) -> None:
    site = two[0]
    account = await site.account()
    socket = await site.connect(account, "desktop")
    again = await site.connect(account, "desktop")
    assert await again.pending() == []
    fresh = await site.ws_token(account, "desktop")
    socket.send({"type": "refresh_token", "token": fresh})
    await socket.expect("token_refreshed")
    again.send({"type": "refresh_token", "token": fresh})
    assert (await again.error())["code"] == "INVALID_TOKEN"
    assert await (await site.open(fresh)).closed() == 4401
    assert await again.pending() == []


async def test_a_used_token_is_remembered_for_as_long_as_it_would_be_taken(two: tuple[Site, Site]) -> None:
    site = two[0]
    token = await site.ws_token(await site.account(), "desktop")
    await (await site.open(token)).expect("connected")
    now = utcnow()

    async def remembered() -> int:
        async with site.node.database.transaction() as conn:
            found = await conn.exec_driver_sql("SELECT count(*) FROM spent_tokens")
            return int(found.scalar_one())

    await site.node.backend.expiry.prune(now + timedelta(seconds=3600 + 29))
    assert await remembered() == 1
    await site.node.backend.expiry.prune(now + timedelta(seconds=3600 + 61))
    assert await remembered() == 0


async def test_who_has_gone_when_the_database_answers_is_no_error(
    two: tuple[Site, Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = two[0]
    http = site.node.http
    token = await site.ws_token(await site.account(), "desktop")
    claims = site.node.backend.tokens.verify_ws(token, utcnow())

    async def until(true: Callable[[], bool]) -> None:
        while not true():
            assert (await site.get("/healthz")).status == 200

    raw = RawSocket()
    with caplog.at_level(logging.ERROR):
        async with site.node.backend.reading.transaction() as conn:
            # Whoever comes with the same token waits for this.
            await logins.spend(conn, claims.token_id, claims.expires_at, utcnow())
            opening = asyncio.ensure_future(raw.open(site, f"?token={token}"))
            while not (await conn.exec_driver_sql(_WAITS)).scalar_one():
                pass
            streams = [c.stream for c in http._connections if not c.stream.closed()]
            [stream] = [one for one in streams if one.socket.getpeername() == raw.address]
            opening.cancel()
            with suppress(asyncio.CancelledError):
                await opening
            raw.reset()
            await until(stream.closed)
        # On a slow machine it has waited too long for the lock.
        decided, refused = site.node.audit.counts, site.node.app.refused
        await until(lambda: bool(decided["auth.token_rejected", "denied"] or refused["UNAVAILABLE"]))
    assert caplog.records == []
