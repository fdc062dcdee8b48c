"""Which acts leave a row in the audit log, and that no row holds a secret."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter
from pairing_server.security.limits import Rate
from tests.conftest import StartNode
from tests.devices import Account, Site
from tests.leaks import audit_rows

PASSWORD = "correct horse battery"
WRONG = "a wrong password"


@pytest.fixture
def limited(start_node: StartNode) -> Site:
    return start_node(join_rate=Rate(5, 10), redeem_policy="any_user")


async def register(site: Site, username: str) -> str:
    answer = await site.post("/api/auth/register", {"username": username, "password": PASSWORD})
    assert answer.status == 201
    return str(answer.body["user_id"])


async def login(site: Site, username: str, password: str = PASSWORD) -> str:
    answer = await site.post("/api/auth/login", {"username": username, "password": password})
    return str(answer.body.get("token", ""))


async def unused(site: Site, account: Account) -> str:
    made = await site.code(account, "desktop-session")
    return f"{(int(made) + 1) % 10**6:06d}"


def subset(event: dict[str, Any], **expected: object) -> bool:
    return {name: event.get(name) for name in expected} == expected


async def test_an_account_that_is_made_is_recorded(site: Site) -> None:
    user_id = await register(site, "ada")
    [made] = await site.events("account.created")
    assert subset(made, outcome="success", target=user_id, role="user")
    await site.post("/api/auth/register", {"username": "ada", "password": PASSWORD})
    assert len(await site.events("account.created")) == 1


async def test_logins_are_recorded_with_how_they_ended(site: Site) -> None:
    user_id = await register(site, "ada")
    await login(site, "ada", WRONG)
    await login(site, "nobody", WRONG)
    await login(site, "ada")
    wrong, unknown, good = await site.events("auth.login")
    assert subset(wrong, outcome="failure", reason="password", target=user_id, actor=None)
    assert subset(unknown, outcome="failure", reason="unknown_user", actor=None)
    assert subset(good, outcome="success", actor=user_id)
    [issued] = await site.events("auth.token_issued")
    assert subset(issued, outcome="success", kind="access", actor=user_id, expires_in=86400)


async def test_a_login_that_is_locked_is_recorded(site: Site) -> None:
    for _ in range(11):
        await login(site, "nobody", WRONG)
    *_, locked = await site.events("auth.login")
    assert subset(locked, outcome="denied", reason="locked", limit="login_user")


async def test_a_ws_token_that_is_issued_is_recorded_by_its_id(site: Site) -> None:
    account = await site.account()
    await site.ws_token(account, "mobile")
    [issued] = await site.events("auth.token_issued")
    assert subset(issued, outcome="success", kind="ws", device_type="mobile", actor=account.subject)
    assert issued["jti"]
    assert issued["kid"]


async def test_a_token_that_is_refused_is_recorded_with_the_reason(site: Site) -> None:
    account = await site.account()
    await site.get("/api/pairings", "nonsense")
    await site.get("/api/pairings", await site.ws_token(account, "desktop"))
    header, payload, _ = account.token.split(".")
    await site.get("/api/pairings", f"{header}.{payload}.{'A' * 43}")
    socket = await site.open(account.token)
    await socket.closed()
    rejected = [(e["kind"], e["reason"], e["outcome"]) for e in await site.events("auth.token_rejected")]
    assert rejected == [
        ("access", "malformed", "denied"),
        ("access", "typ", "denied"),
        ("access", "signature", "denied"),
        ("ws", "typ", "denied"),
    ]


async def test_a_request_without_a_token_is_no_event(site: Site) -> None:
    await site.get("/api/pairings")
    assert await site.events("auth.token_rejected") == []


async def test_a_pairing_is_recorded_from_its_code_to_its_end(site: Site) -> None:
    account, stranger = await site.account(), await site.account()
    code = await site.code(account, "desktop-session")
    await site.redeem(stranger, code, "mobile-stranger")
    await site.redeem(account, code, "mobile-session")
    await site.redeem(account, code, "mobile-session")
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    [made] = await site.events("pairing.code_created")
    assert subset(made, outcome="success", actor=account.subject, desktop_session="desktop-session")
    foreign, won, again = await site.events("pairing.redeem")
    assert subset(foreign, outcome="failure", actor=stranger.subject, mobile_session="mobile-stranger")
    assert subset(won, outcome="success", reason=None, actor=account.subject)
    assert won["ms_since_created"] >= 0
    assert subset(again, outcome="success", reason="retry_same")
    [closed] = await site.events("pairing.closed")
    assert subset(closed, outcome="success", reason="unpaired", actor=account.subject)


async def test_a_session_id_is_recorded_when_it_is_bound_and_when_another_wants_it(site: Site) -> None:
    owner, thief = await site.account(), await site.account()
    await site.code(owner, "desktop-session")
    await site.code(owner, "desktop-session")
    [bound] = await site.events("session.bound")
    assert subset(
        bound, actor=owner.subject, session_id="desktop-session", device_type="desktop", outcome="success"
    )
    body = {"desktop_session_id": "desktop-session"}
    assert (await site.post("/api/generate-pair-code", body, thief.token)).status == 409
    socket = await site.connect(thief, "desktop")
    socket.send({"type": "identify", "device_type": "desktop", "session_id": "desktop-session"})
    await socket.error()
    attempts = await site.events("session.hijack_attempt")
    assert len(attempts) == 2
    for attempt in attempts:
        assert subset(attempt, outcome="denied", actor=thief.subject, owner=owner.subject)


async def test_a_lock_out_is_recorded_once_and_tries_while_it_lasts_each(site: Site) -> None:
    account = await site.account()
    wrong = await unused(site, account)
    for _ in range(12):
        await site.redeem(account, wrong, "mobile-session")
    lockouts = [e for e in await site.events("auth.lockout") if e["scope"] == "redeem_user"]
    assert len(lockouts) == 1
    assert subset(lockouts[0], outcome="denied", actor=account.subject)
    reasons = [event["reason"] for event in await site.events("pairing.redeem")]
    assert reasons == ["no_such_code"] * 10 + ["locked"] * 2


async def test_an_act_that_fails_leaves_no_row_of_its_success(site: Site) -> None:
    """The row stands in the act's own transaction."""
    account = await site.account()
    # Nobody counts them anew.
    site.node.backend.code_limits.live = site.node.config.max_live_codes
    body = {"desktop_session_id": "desktop-session"}
    assert (await site.post("/api/generate-pair-code", body, account.token)).status == 503
    assert await site.events("pairing.code_created") == []
    assert await site.events("session.bound") == []


async def test_text_of_a_client_stands_harmless_in_a_row(site: Site, database_url: str) -> None:
    account = await site.account()
    agent = "Evil\u202e/1.0\x7f" + "x" * 400
    socket = await site.open(await site.ws_token(account, "desktop"), headers={"User-Agent": "A" * 400})
    await socket.expect("connected")
    socket.send(
        {
            "type": "identify",
            "device_type": "desktop",
            "session_id": "desktop-session",
            "user_agent": agent,
        }
    )
    await socket.expect("identified")
    [connected] = await site.events("ws.connected")
    assert connected["ua"] == "A" * 200
    for row in await every_row(site, database_url):
        assert "\u202e" not in row
        assert "\x7f" not in row


async def every_row(site: Site, database_url: str) -> list[str]:
    """Each row of the log as text."""
    await site.events("system.started")  # everything that waits is written
    return await audit_rows(database_url)


async def test_no_row_holds_a_token_a_code_or_a_password(limited: Site, database_url: str) -> None:
    site = limited
    await register(site, "ada")
    access = await login(site, "ada")
    await login(site, "ada", WRONG)
    account, admin = Account("", "ada", access), await site.account(role="admin")
    code = await site.code(account, "desktop-session")
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    await site.redeem(admin, wrong, "mobile-of-admin")
    await site.redeem(account, code, "mobile-session")
    tokens = [access, await site.ws_token(account, "desktop"), await site.ws_token(account, "mobile")]
    desktop = await site.join(account, "desktop", f"pair-{code}", "desktop-session")
    mobile = await site.join(account, "mobile", f"pair-{code}", "mobile-session")
    intruder = await site.connect(admin, "mobile")
    for channel in (f"pair-{code}", f"pair-{wrong}"):
        intruder.send(
            {
                "type": "join_channel",
                "channel": channel,
                "device_type": "mobile",
                "session_id": "mobile-intruder",
            }
        )
        await intruder.error()
    secret = "the text that they exchange"
    mobile.socket.send(
        {"type": "channel_message", "channelId": mobile.channel, "payload": {"secret": secret}}
    )
    mobile.socket.send({"type": "channel_message", "channelId": f"pair-{wrong}", "payload": {"s": secret}})
    mobile.socket.send({"type": "nonsense", "channel": mobile.channel, "token": access})
    mobile.socket.send(
        {"type": "settings_sync", "channelId": mobile.channel, "settings": {"big": secret * 2000}}
    )
    mobile.socket.send({"type": "refresh_token", "token": tokens[1]})
    await mobile.socket.closed()
    for bad in (tokens[1], access[:-4] + "AAAA", f"Bearer {code}"):
        await site.get("/api/pairings", bad)
        await (await site.open(bad.replace(" ", ""))).receive()
    desktop.socket.send({"type": "unpair", "channel": desktop.channel})
    await desktop.socket.closed()
    rows = await every_row(site, database_url)
    assert len(rows) > 25
    keys = [key.secret.decode() for key in site.node.config.jwt_keys]
    signatures = [part for token in tokens for part in token.split(".")[1:]]
    for row in rows:
        for hidden in (*tokens, *signatures, *keys, PASSWORD, WRONG, secret, f"pair-{code}", f"pair-{wrong}"):
            assert hidden not in row, (hidden, row)
        # Six digits may stand in a longer number by chance; after a dot they are microseconds.
        assert not re.search(rf"(?<![0-9A-Za-z.])({code}|{wrong})(?![0-9A-Za-z])", row), row


async def test_every_event_of_the_log_has_its_form(site: Site) -> None:
    """Nothing that the acts above record is refused by the database, and each has an actor's kind."""
    account = await site.account()
    desktop, _ = await site.pair(account)
    desktop.socket.close()
    await desktop.socket.closed()
    await site.events("system.started")
    async with site.node.database.transaction() as conn:
        found = (await search.page(conn, Filter(), 1000)).events
    assert {recorded.event.event for recorded in found} >= {
        "system.started",
        "pairing.code_created",
        "pairing.redeem",
        "session.bound",
        "auth.token_issued",
        "ws.connected",
        "channel.joined",
    }
    assert {recorded.event.actor_kind for recorded in found} <= {"user", "device", "system", "anonymous"}
