"""What one account may have kept: ws tokens, connections, logins that it ends."""

from __future__ import annotations

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.security.limits import Rate
from tests.conftest import StartNode
from tests.devices import Site


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node(ws_token_rate=Rate(3, 3600), connect_rate=Rate(4, 3600), logout_rate=Rate(2, 86_400))


async def test_ws_tokens_of_a_user_have_a_rate(site: Site) -> None:
    account, other = await site.account(), await site.account()
    for number in range(5):
        path = "/api/auth/ws-token" + ("-mobile" if number % 2 else "")
        answer = await site.post(path, {}, account.token)
        assert answer.status == (200 if number < 3 else 429), number
    assert answer.error == "RATE_LIMITED"
    assert answer.body["details"] == {"limit": "ws_token"}
    assert 3000 < int(answer.headers["Retry-After"]) <= 3600
    assert await site.ws_token(other, "desktop")


async def test_connections_of_a_user_have_a_rate_also_with_one_token(site: Site) -> None:
    account, other = await site.account(), await site.account()
    token = await site.ws_token(account, "desktop")
    for _ in range(4):
        socket = await site.open(token)
        await socket.expect("connected")
        socket.close()
    refused = await site.open(token)
    error = await refused.error()
    assert (error["code"], error["details"]["limit"]) == ("RATE_LIMITED", "connect")
    assert error["details"]["retry_after_ms"] > 3_000_000
    assert await refused.closed() == 4429
    assert await site.connect(other, "desktop")
    [event] = await site.events("ws.rejected")
    assert event["reason"] == "connect"


async def test_logins_ended_one_by_one_have_a_rate_and_all_at_once_have_none(site: Site) -> None:
    account = await site.account()

    async def login() -> str:
        service = site.node.services.authentication
        return (await service.issue_access_token(system(utcnow()), account.username, None)).token

    revocations = site.node.services.logins.revocations
    for number in range(4):
        answer = await site.post("/api/auth/logout", {}, await login())
        assert answer.status == (200 if number < 2 else 429)
    token = await login()
    [own, *_] = (await site.get("/api/logins", token)).body["logins"]
    ended = await site.call("DELETE", f"/api/logins/{own['id']}", None, token)
    assert (ended.status, ended.body["details"]) == (429, {"limit": "logout"})
    assert len(revocations._known) == 2
    assert (await site.post("/api/auth/logout", {"everywhere": True}, token)).status == 200
    assert len(revocations._known) == 3
