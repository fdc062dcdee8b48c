"""Opening /ws: the token's places, what a bad one gets, Origin, and what a token must never do: be logged."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import NoReturn
from uuid import UUID

import pytest
from tornado.httpclient import HTTPClientError

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.security.addresses import parse_networks
from pairing_server.security.keys import generate_key
from pairing_server.security.limits import Rate
from pairing_server.security.origins import Origins
from pairing_server.security.tokens import AccessClaims, Tokens
from pairing_server.web.authentication import select_subprotocol
from tests.conftest import StartNode
from tests.devices import Account, Site, Socket
from tests.websocket.raw import CLOSE, TEXT, RawSocket

pytestmark = pytest.mark.one_node


@pytest.fixture
def with_origins(start_node: StartNode) -> Site:
    allowed = ["https://app.example.com", "https://*.example.org", "tauri://localhost"]
    return start_node(allowed_origins=Origins.parse(allowed))


@pytest.fixture
def three_tries(start_node: StartNode) -> Site:
    return start_node(handshake_failures=Rate(3, 60))


@pytest.fixture
def proxied(start_node: StartNode) -> Site:
    return start_node(handshake_failures=Rate(1, 60), trusted_proxies=parse_networks(["127.0.0.0/8"]))


@pytest.fixture
def single_use(start_node: StartNode) -> Site:
    return start_node(ws_token_single_use=True)


def now() -> float:
    return asyncio.get_running_loop().time()


async def refused(site: Site, token: str | None, **headers: str) -> HTTPClientError:
    """The plain HTTP answer to an upgrade that does not complete."""
    with pytest.raises(HTTPClientError) as answer:
        await site.open(token, headers=headers)
    return answer.value


async def turned_away(socket: Socket) -> int | None:
    error = await socket.error()
    assert (error["code"], error["retryable"]) == ("INVALID_TOKEN", False)
    return await socket.closed()


async def known(site: Site, socket: Socket, session_id: str = "desktop-1") -> None:
    """Identify, so that the connection is not closed for being idle."""
    socket.send({"type": "identify", "device_type": "desktop", "session_id": session_id})
    await socket.expect("identified")


async def test_the_token_may_come_in_any_of_three_places(site: Site) -> None:
    account = await site.account()
    token = await site.ws_token(account, "desktop")
    places = ("query", "header", "subprotocol")
    greetings = [await (await site.open(token, via)).expect("connected") for via in places]
    assert len({str(UUID(greeting["client_id"])) for greeting in greetings}) == 3
    events = await site.events("ws.connected")
    assert [(event["token_via"], event["actor"]) for event in events] == [
        (via, account.subject) for via in places
    ]
    assert all(event["device_type"] == "desktop" for event in events)


@pytest.mark.parametrize(
    ("offered", "picked"),
    [
        (["pairing.v1", "Bearer.abc"], "pairing.v1"),
        (["Bearer.abc", "pairing.v1"], "pairing.v1"),
        (["chat", "Bearer.abc"], "Bearer.abc"),
        (["bearer.abc"], "bearer.abc"),
        (["pairing.v1"], "pairing.v1"),
        (["chat"], None),
        ([], None),
    ],
)
def test_of_the_subprotocols_pairing_v1_is_picked_else_the_token_is_echoed(
    offered: list[str], picked: str | None
) -> None:
    assert select_subprotocol(offered) == picked


async def test_a_browser_gets_one_of_the_subprotocols_it_offered(site: Site) -> None:
    token = await site.ws_token(await site.account(), "desktop")
    for offered, picked in (
        (f"pairing.v1, Bearer.{token}", "pairing.v1"),
        (f"Bearer.{token}", f"Bearer.{token}"),
    ):
        socket = await site.open(None, headers={"Sec-WebSocket-Protocol": offered})
        await socket.expect("connected")
        assert socket.connection.selected_subprotocol == picked
    plain = await site.open(token)
    await plain.expect("connected")
    assert plain.connection.selected_subprotocol is None


async def test_a_ws_token_may_be_used_again_until_it_expires(site: Site) -> None:
    token = await site.ws_token(await site.account(), "mobile")
    for _ in range(3):
        await (await site.open(token)).expect("connected")


def aged(site: Site, account: Account, age_s: float) -> str:
    """A ws token that was made so long ago."""
    claims = AccessClaims(account.subject, "token", "login", utcnow(), utcnow() + timedelta(hours=1), False)
    made = utcnow() - timedelta(seconds=age_s)
    return site.node.backend.tokens.issue_ws(claims, "desktop", None, made).token


async def test_without_a_valid_token_the_upgrade_completes_with_invalid_token_and_4401(site: Site) -> None:
    account = await site.account()
    valid = await site.ws_token(account, "desktop")
    stranger = AccessClaims(account.subject, "token", "login", utcnow(), utcnow(), False)
    forged = Tokens([generate_key()]).issue_ws(stranger, "desktop", None, utcnow()).token
    bad = {
        "expired": aged(site, account, 3600 + 31),
        "access": account.token,
        "forged": forged,
        "cut": valid[:-1],
        "garbage": "x",
        "empty": "",
    }
    for name, token in bad.items():
        assert await turned_away(await site.open(token)) == 4401, name
    for via in ("header", "subprotocol"):
        assert await turned_away(await site.open(account.token, via)) == 4401, via
    assert await turned_away(await site.open(None)) == 4401
    assert await turned_away(await site.open(None, headers={"Authorization": f"Basic {valid}"})) == 4401
    assert site.node.hub.connections == {}
    rejected = await site.events("auth.token_rejected")
    assert len(rejected) == len(bad) + 4
    assert {(event["kind"], event["outcome"]) for event in rejected} == {("ws", "denied")}
    assert {"expired", "typ", "kid"} <= {event["reason"] for event in rejected}


async def test_a_token_within_the_leeway_after_its_expiry_still_opens(site: Site) -> None:
    socket = await site.open(aged(site, await site.account(), 3600 + 20))
    await socket.expect("connected")


async def test_nothing_is_taken_from_a_client_that_was_turned_away(site: Site) -> None:
    raw = RawSocket()
    await raw.open(site, "?token=x")
    assert (await raw.read()).payload.startswith(b'{"type":"error"')
    assert (await raw.read()).close_code == 4401
    await raw.send(TEXT, b'{"type":"ping","sequence":1}')
    await raw.send(CLOSE)
    assert await raw.rest() == []
    raw.close()


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS"])
async def test_no_other_method_than_get_opens_or_spends_a_token(single_use: Site, method: str) -> None:
    site = single_use
    token = await site.ws_token(await site.account(), "desktop")
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    answer = await site.call(method, f"/ws?token={token}", headers=upgrade)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    await (await site.open(token)).expect("connected")


async def test_another_origin_is_a_plain_403_and_no_origin_is_a_native_app(with_origins: Site) -> None:
    site = with_origins
    token = await site.ws_token(await site.account(), "desktop")
    own = f"http://127.0.0.1:{site.port}"
    for origin in (
        *("https://app.example.com", "https://app.example.com:443", "https://a.example.org"),
        *("tauri://localhost", own, "http://pairing.test"),
    ):
        await (await site.open(token, headers={"Origin": origin})).expect("connected")
    await (await site.open(token)).expect("connected")
    for origin in (
        *("https://app.example.com.evil.test", "https://app.example.comx", "http://app.example.com"),
        *("https://app.example.com:8443", "https://evil.test/?https://app.example.com", "null", ""),
        *("https://evil.test@app.example.com", "https://a.b.example.org", "https://example.org"),
        *("https://aexample.org", f"{own}0", f"{own}.evil.test", "http://pairing.test.evil.test"),
    ):
        assert (await refused(site, token, Origin=origin)).code == 403, origin
    answer = await refused(site, None, Origin="https://evil.test")
    assert answer.code == 403
    assert answer.response is not None
    assert b"ORIGIN_NOT_ALLOWED" in (answer.response.body or b"")
    rejected = await site.events("ws.rejected")
    assert {(event["reason"], event["outcome"]) for event in rejected} == {("origin", "denied")}


async def test_what_a_browser_says_about_the_site_makes_no_foreign_origin_one_of_ours(
    with_origins: Site,
) -> None:
    """Tornado by itself would ask nothing further about those that say they are of the same origin."""
    token = await with_origins.ws_token(await with_origins.account(), "desktop")
    for said in ("same-origin", "same-site", "none", "cross-site"):
        told = {"Sec-Fetch-Site": said}
        wrong = await refused(with_origins, token, Origin="https://evil.test", **told)
        assert wrong.code == 403, said
        headers = {"Origin": "https://app.example.com", **told}
        await (await with_origins.open(token, headers=headers)).expect("connected")


async def test_an_address_has_so_many_tries_without_a_valid_token_and_a_valid_one_always_gets_in(
    three_tries: Site,
) -> None:
    site = three_tries
    token = await site.ws_token(await site.account(), "desktop")
    for _ in range(3):
        assert await turned_away(await site.open("x")) == 4401
    answer = await refused(site, "x")
    assert answer.code == 429
    assert answer.response is not None
    assert 1 <= int(answer.response.headers["Retry-After"]) <= 61
    assert (await refused(site, None)).code == 429
    await (await site.open(token)).expect("connected")
    site.node.app.now = lambda: now() + 61
    assert await turned_away(await site.open("x")) == 4401


async def test_behind_a_trusted_proxy_every_client_has_tries_of_its_own(proxied: Site) -> None:
    site = proxied
    for address in ("192.0.2.1", "192.0.2.2"):
        socket = await site.open("x", headers={"X-Forwarded-For": f"10.9.9.9, {address}"})
        assert await turned_away(socket) == 4401
    answer = await refused(site, "x", **{"X-Forwarded-For": "192.0.2.1"})
    assert answer.code == 429


async def test_a_node_that_drains_takes_no_new_connection(own_site: Site) -> None:
    token = await own_site.ws_token(await own_site.account(), "desktop")
    own_site.node.app.draining = True
    answer = await refused(own_site, token)
    assert answer.code == 503
    assert answer.response is not None
    assert "Retry-After" in answer.response.headers


class BrokenOrigins(Origins):
    def allows(self, origin: str) -> bool:
        raise RuntimeError("broken")


def broken(*_: object) -> NoReturn:
    raise RuntimeError("broken")


async def test_a_token_is_in_no_log_line_even_when_a_handler_fails(
    own_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = own_site
    caplog.set_level(logging.DEBUG)
    account = await site.account()
    token = await site.ws_token(account, "desktop")
    parts = set(token.split(".")) | {token}
    for via in ("query", "header", "subprotocol"):
        await (await site.open(token, via)).expect("connected")
    await turned_away(await site.open(f"{token}x"))
    await site.get(f"/ws?token={token}")
    await site.call("POST", f"/ws?token={token}")
    await site.get(f"/nothing?token={token}")
    site.node.app.origins = BrokenOrigins.parse([])
    for via in ("query", "header", "subprotocol"):
        with pytest.raises(HTTPClientError) as answer:
            await site.open(token, via, {"Origin": "https://evil.test"})
        assert answer.value.code == 500
    desktop, _ = await site.pair(account)
    site.node.hub.context.report = broken
    desktop.socket.send({"type": "channel_message", "channel": "pair-000000", "payload": {}, "token": token})
    assert (await desktop.socket.error())["code"] == "INTERNAL"
    desktop.socket.send({"type": "refresh_token", "token": f"{token}x"})
    assert (await desktop.socket.error())["code"] == "INVALID_TOKEN"
    site.node.hub.reached_limit = broken  # type: ignore[assignment,method-assign]
    assert await (await site.open(token)).closed() == 1011
    lines = [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    assert sum("broken" in line or "failed" in line for line in lines) >= 4
    # The fields of each line, too, such as the path.
    shown = caplog.text + "\n".join(lines) + "\n".join(str(vars(record)) for record in caplog.records)
    assert not [part for part in parts if part in shown]
    assert "/ws" in shown


async def test_who_neither_identifies_nor_joins_within_ten_seconds_is_closed_4408(site: Site) -> None:
    account = await site.account()
    idle, busy = await site.connect(account, "desktop"), await site.connect(account, "desktop")
    await known(site, busy)
    [opened_at] = [s.opened_at for s in site.node.hub.connections.values() if s.device is None]
    site.node.hub.check_timeouts(opened_at + 10)
    assert await idle.pending() == []
    site.node.hub.check_timeouts(opened_at + 10.1)
    assert await idle.closed() == 4408
    assert await busy.pending() == []


async def test_a_fresh_token_carries_the_connection_on(site: Site) -> None:
    account = await site.account()
    socket = await site.connect(account, "desktop")
    await known(site, socket)
    [connection] = site.node.hub.connections.values()

    def left(seconds: float) -> None:
        """The token lives for so many seconds more."""
        site.node.hub.check_timeouts(connection.identity.expires_at - seconds)

    for _ in range(2):
        left(60.1)
        assert await socket.pending() == []
        left(50)
        assert (await socket.expect("token_expiring"))["expires_in"] == 50
        left(49)
        fresh = await site.ws_token(account, "desktop")
        expires_at = site.node.backend.tokens.verify_ws(fresh, utcnow()).expires_at
        most = round((expires_at - utcnow()).total_seconds())
        socket.send({"type": "refresh_token", "token": fresh})
        told = (await socket.expect("token_refreshed"))["expires_in"]
        assert round((expires_at - utcnow()).total_seconds()) <= told <= most
    left(-29.9)
    assert await socket.pending() == [{"type": "token_expiring", "expires_in": 0}]
    left(-30.1)
    assert await turned_away(socket) == 4401
    [first, second] = await site.events("auth.token_refreshed")
    assert first["jti_new"] == second["jti_old"]


async def test_a_token_that_is_no_ws_token_is_refused_and_the_connection_stays(site: Site) -> None:
    account = await site.account()
    socket = await site.connect(account, "desktop")
    for token in ("x", account.token, aged(site, account, 4000)):
        socket.send({"type": "refresh_token", "token": token})
        assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.pending() == []


async def test_somebody_elses_token_closes_4403(site: Site) -> None:
    account = await site.account()
    for other, device_type in ((await site.account(), "desktop"), (account, "mobile")):
        socket = await site.connect(account, "desktop")
        socket.send({"type": "refresh_token", "token": await site.ws_token(other, device_type)})
        assert (await socket.error())["code"] == "FORBIDDEN"
        assert await socket.closed() == 4403
    rejected = await site.events("auth.token_rejected")
    assert [event["reason"] for event in rejected] == ["other_subject", "other_subject"]


async def test_a_disabled_account_is_closed_4401_when_it_identifies_or_joins(site: Site) -> None:
    account = await site.account("leaving")
    code = await site.code(account, "desktop-1")
    sockets = [await site.connect(account, "desktop") for _ in range(2)]
    await site.node.services.accounts.set_disabled(system(utcnow()), "leaving", True)
    sockets[0].send({"type": "identify", "device_type": "desktop", "session_id": "desktop-1"})
    sockets[1].send({"type": "join_channel", "channel": f"pair-{code}", "session_id": "desktop-1"})
    for socket in sockets:
        assert await turned_away(socket) == 4401
