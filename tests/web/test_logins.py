"""Ending logins: by their owner, by an administrator, on whichever server they are used."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import NotFound
from pairing_server.request_context import system
from pairing_server.security.issuers import Issuer
from pairing_server.server.server import Node
from tests.conftest import StartNode
from tests.devices import Account, Device, Site
from tests.security.provider import AUDIENCE, ISSUER, Provider

PASSWORD = "correct horse battery"


async def another_login(site: Site, account: Account) -> Account:
    """The same user's, by his name, as `pairing-server token issue` makes it."""
    issued = await site.node.services.authentication.issue_access_token(
        system(utcnow()), account.username, None
    )
    return Account(account.subject, account.username, issued.token)


async def logout(site: Site, account: Account, **body: Any) -> int:
    answer = await site.post("/api/auth/logout", body or None, account.token)
    assert answer.status == 200, answer
    closed: int = answer.body["connections_closed"]
    return closed


async def status(site: Site, account: Account) -> int:
    return (await site.get("/api/pairings", account.token)).status


async def learn(site: Site) -> int:
    """What the server does once a second."""
    return await site.node.services.logins.poll_revocations(utcnow())


async def ended(device: Device) -> bool:
    """Whether the device gets the error that its login has ended, and the close."""
    error = await device.socket.error()
    assert "Log in again" in error["message"]
    return (error["code"], await device.socket.closed()) == ("INVALID_TOKEN", 4401)


async def test_logging_out_ends_the_login_its_ws_tokens_and_its_connections(site: Site) -> None:
    account = await site.account()
    ws_token = await site.ws_token(account, "desktop")
    desktop, mobile = await site.pair(account)
    assert await logout(site, account) == 2
    assert await ended(desktop)
    assert await ended(mobile)
    refused = await site.get("/api/pairings", account.token)
    assert (refused.status, refused.error) == (401, "INVALID_TOKEN")
    socket = await site.open(ws_token)
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.closed() == 4401
    assert (await site.post("/api/auth/logout", None, account.token)).status == 401


async def test_other_logins_of_the_user_go_on_unless_all_are_ended(site: Site) -> None:
    first = await site.account()
    second, third = await another_login(site, first), await another_login(site, first)
    socket = await site.connect(second, "desktop")
    assert await logout(site, first) == 0
    assert [await status(site, login) for login in (first, second, third)] == [401, 200, 200]
    assert await socket.pending() == []
    assert await logout(site, third, everywhere=True) == 1
    assert await socket.closed() == 4401
    assert [await status(site, login) for login in (first, second, third)] == [401, 401, 401]
    assert await status(site, await another_login(site, first)) == 200


async def test_another_users_login_is_never_ended_along(site: Site) -> None:
    account, other = await site.account(), await site.account()
    await logout(site, account, everywhere=True)
    assert await status(site, other) == 200


@pytest.mark.parametrize("wrong", ["true", 1, None])
async def test_everywhere_is_true_or_false(site: Site, wrong: object) -> None:
    account = await site.account()
    answer = await site.post("/api/auth/logout", {"everywhere": wrong}, account.token)
    assert (answer.status, list(answer.body["details"]["fields"])) == (422, ["everywhere"])
    assert await status(site, account) == 200


@pytest.fixture
def two(start_node: StartNode) -> tuple[Site, Site]:
    """Two servers; the second learns only when the test says so."""
    here, there = start_node(), start_node()
    return here, there


async def test_another_server_learns_it_with_its_next_look(two: tuple[Site, Site]) -> None:
    here, there = two
    account = await here.account()
    ws_token = await there.ws_token(account, "desktop")
    desktop, mobile = await there.pair(account)
    assert await logout(here, account) == 0
    assert await status(there, account) == 401
    assert await desktop.socket.pending() == []
    assert await learn(there) == 2
    assert await ended(desktop) and await ended(mobile)
    assert await status(there, account) == 401
    assert await (await there.open(ws_token)).closed() == 4401
    assert await learn(there) == 0


async def test_every_server_looks_once_a_second(site: Site) -> None:
    every = {job.name: job.every for job in site.node.scheduler.jobs}
    assert every["poll revocations"] == every["close disabled accounts"] == 1


async def test_no_ws_token_is_made_from_a_login_that_another_server_has_ended(two: tuple[Site, Site]) -> None:
    """Not even before this one has learnt of it: or that token would live for an hour."""
    here, there = two
    account = await here.account()
    await logout(here, account)
    answer = await there.post("/api/auth/ws-token", {}, account.token)
    assert (answer.status, answer.error) == (401, "INVALID_TOKEN")
    [rejected] = await there.events("auth.token_rejected")
    assert (rejected["reason"], rejected["kind"]) == ("revoked", "access")


async def test_a_server_that_starts_knows_what_was_ended_before(site: Site, database_url: str) -> None:
    account = await site.account()
    await logout(site, account)
    later = Node(site.node.config, database_url)
    [(_, port)] = await later.start(timers=False)
    restarted = Site(later, port)
    assert await status(restarted, account) == 401
    await restarted.close()
    await later.stop()


async def test_verifying_a_ws_token_asks_the_database_nothing(site: Site) -> None:
    account = await site.account()
    token = await site.ws_token(account, "desktop")
    other = await site.account()
    await logout(site, other)
    await site.node.database.close()
    assert site.node.backend.tokens.verify_ws(token, utcnow()).subject == account.subject


async def test_what_does_not_matter_any_more_is_forgotten(site: Site) -> None:
    account = await site.account()
    now = utcnow()
    claims = await site.node.backend.tokens.verify_access(account.token, now)
    await logout(site, account)
    revoked = site.node.services.logins.revocations
    seen = (claims.subject, claims.login_id, claims.token_id, claims.issued_at)
    assert revoked.covers(*seen)
    revoked.forget(claims.expires_at)
    assert revoked.covers(*seen)
    revoked.forget(now + timedelta(days=366))
    assert not revoked.covers(*seen)


# One's own logins


async def test_ones_logins_are_listed_with_which_one_asks_and_their_connections(site: Site) -> None:
    account = await site.account()
    first, second = await another_login(site, account), await another_login(site, account)
    await site.pair(first)
    stranger = await another_login(site, await site.account())
    answer = await site.get("/api/logins", second.token)
    listed = answer.body["logins"]
    assert [(one["current"], one["connections"]) for one in listed] == [(True, 0), (False, 2)]
    assert listed[1]["address"] == "127.0.0.1"
    assert listed[0]["created_at"] <= listed[0]["seen_at"] <= listed[0]["expires_at"]
    assert len((await site.get("/api/logins", stranger.token)).body["logins"]) == 1


async def test_one_of_ones_logins_can_be_ended_and_nobody_elses(site: Site) -> None:
    account = await site.account()
    first, second = await another_login(site, account), await another_login(site, account)
    stranger = await another_login(site, await site.account())
    socket = await site.connect(first, "mobile")
    listed = (await site.get("/api/logins", second.token)).body["logins"]
    [other] = [one["id"] for one in listed if not one["current"]]
    refused = await site.call("DELETE", f"/api/logins/{other}", None, stranger.token)
    assert (refused.status, refused.error) == (404, "NOT_FOUND")
    assert await socket.pending() == []
    answer = await site.call("DELETE", f"/api/logins/{other}", None, second.token)
    assert (answer.status, answer.body["connections_closed"]) == (200, 1)
    assert await socket.closed() == 4401
    assert [await status(site, login) for login in (first, second)] == [401, 200]
    [left] = (await site.get("/api/logins", second.token)).body["logins"]
    assert left["current"]
    # The answer to the first request may have been lost.
    again = await site.call("DELETE", f"/api/logins/{other}", None, second.token)
    assert (again.status, again.body["success"], again.body["connections_closed"]) == (200, True, 0)
    refused = await site.call("DELETE", f"/api/logins/{other}", None, stranger.token)
    assert (refused.status, refused.error) == (404, "NOT_FOUND")
    assert len(await site.events("auth.token_revoked")) == 1


# What an administrator does


async def test_a_login_a_user_and_a_token_can_be_revoked(site: Site) -> None:
    node, account = site.node, await site.account()
    first, second = await another_login(site, account), await another_login(site, account)
    claims = await node.backend.tokens.verify_access(second.token, utcnow())
    socket = await site.connect(second, "desktop")
    await node.services.logins.revoke_login(system(utcnow()), claims.login_id)
    assert await socket.closed() == 4401
    assert [await status(site, login) for login in (first, second)] == [200, 401]
    assert await node.services.logins.revoke_user(system(utcnow()), account.username) == (account.subject, 1)
    assert await status(site, first) == 401
    third = await another_login(site, account)
    token_id = (await node.backend.tokens.verify_access(third.token, utcnow())).token_id
    await node.services.logins.revoke_token(system(utcnow()), token_id, None)
    assert await status(site, third) == 401


async def test_a_new_password_ends_all_logins_made_with_the_old_one(site: Site) -> None:
    account = await site.account("ada")
    desktop, _ = await site.pair(account)
    await site.node.services.accounts.set_password(system(utcnow()), "ada", PASSWORD)
    assert await ended(desktop)
    assert await status(site, account) == 401
    login = await site.post("/api/auth/login", {"username": "ada", "password": PASSWORD})
    assert await status(site, Account(account.subject, "ada", login.body["token"])) == 200


async def test_ending_is_recorded_with_the_act_and_refused_tokens_with_why(site: Site) -> None:
    account = await site.account()
    claims = await site.node.backend.tokens.verify_access(account.token, utcnow())
    await site.pair(account)
    await logout(site, account)
    assert await status(site, account) == 401
    [event] = await site.events("auth.logout")
    assert (event["sid"], event["sockets_closed"], event["everywhere"]) == (claims.login_id, 2, False)
    assert event["actor"] == account.subject
    other = await another_login(site, await site.account())
    sid = (await site.node.backend.tokens.verify_access(other.token, utcnow())).login_id
    await site.node.services.logins.revoke_login(system(utcnow()), sid)
    [event] = await site.events("auth.token_revoked")
    assert (event["sid"], event["by"], event["target"]) == (sid, "admin", other.subject)
    assert [event["reason"] for event in await site.events("auth.token_rejected")] == ["revoked"]


# Foreign issuers


@pytest.fixture
def foreign(start_node: StartNode, tmp_path: Path) -> tuple[Site, Provider]:
    provider = Provider()
    (tmp_path / "jwks.json").write_bytes(provider.jwks())
    issuer = Issuer(ISSUER, AUDIENCE, ("ES256",), str(tmp_path / "jwks.json"))
    return start_node(issuers=(issuer,)), provider


def theirs(provider: Provider, **claims: object) -> Account:
    subject = f"{ISSUER}|ada"
    return Account(subject, "", provider.token(now=utcnow().replace(microsecond=0), **claims))


async def test_a_foreign_login_ends_with_all_tokens_of_its_session(foreign: tuple[Site, Provider]) -> None:
    site, provider = foreign
    first, again, other = (
        theirs(provider, sid="s1", jti="t1"),
        theirs(provider, sid="s1", jti="t2"),
        theirs(provider, sid="s2", jti="t3"),
    )
    socket = await site.connect(again, "desktop")
    assert await logout(site, first) == 1
    assert await socket.closed() == 4401
    assert [await status(site, login) for login in (first, again, other)] == [401, 401, 200]


async def test_a_foreign_token_is_revoked_by_its_issuer_and_jti_and_a_user_by_name(
    foreign: tuple[Site, Provider],
) -> None:
    site, provider = foreign
    one, other = theirs(provider, jti="t1"), theirs(provider, jti="t2")
    node = site.node
    for misspelt in ("https://another.example/", f"{ISSUER}/", ISSUER.upper()):
        with pytest.raises(NotFound, match="trusts no issuer"):
            await node.services.logins.revoke_token(system(utcnow()), "t1", misspelt)
        with pytest.raises(NotFound, match="trusts no issuer"):
            await node.services.logins.revoke_user(system(utcnow()), f"{misspelt}|ada")
    assert [await status(site, login) for login in (one, other)] == [200, 200]
    await node.services.logins.revoke_token(system(utcnow()), "t1", ISSUER)
    assert [await status(site, login) for login in (one, other)] == [401, 200]
    socket = await site.connect(other, "mobile")
    await node.services.logins.revoke_user(system(utcnow()), f"{ISSUER}|ada")
    assert await socket.closed() == 4401
    assert await status(site, other) == 401
