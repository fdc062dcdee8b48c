"""Authentication: what HTTP answers do not show of logins and tokens."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import (
    BadCredentials,
    Forbidden,
    InvalidToken,
    RateLimited,
)
from pairing_server.request_context import RequestContext
from pairing_server.security.passwords import Passwords
from pairing_server.server.server import Node
from pairing_server.services import account_status
from pairing_server.store import rate_limits
from tests.devices import Site
from tests.services.conftest import stored_hash

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"
ADMIN = RequestContext(utcnow(), kind="admin")
ANYBODY = RequestContext(utcnow(), address="192.0.2.1", address_key="192.0.2.1")


async def test_a_login_renews_a_hash_with_outdated_parameters(site: Site, cheap: Passwords) -> None:
    node, today = site.node, site.node.services.authentication
    await replace(node.services.accounts, passwords=cheap).add_user(ADMIN.at(NOW), "alice", PASSWORD, "user")
    old = await stored_hash(node, "alice")
    with pytest.raises(BadCredentials):
        await today.log_in(ANYBODY.at(NOW), "alice", "wrong")
    assert await stored_hash(node, "alice") == old
    await today.log_in(ANYBODY.at(NOW), "alice", PASSWORD)
    new = await stored_hash(node, "alice")
    assert "m=19456" in new
    assert "m=19456" not in old
    await today.log_in(ANYBODY.at(NOW), "alice", PASSWORD)
    assert await stored_hash(node, "alice") == new


async def test_wrong_logins_made_at_once_are_all_counted(node: Node) -> None:
    await node.services.accounts.add_user(ADMIN.at(NOW), "alice", PASSWORD, "user")
    tries = [node.services.authentication.log_in(ANYBODY.at(NOW), "alice", f"wrong {n}") for n in range(15)]
    refused = [type(error) for error in await asyncio.gather(*tries, return_exceptions=True)]
    assert (refused.count(BadCredentials), refused.count(RateLimited)) == (10, 5)
    with pytest.raises(RateLimited) as raised:
        await node.services.authentication.log_in(ANYBODY.at(NOW), "alice", PASSWORD)
    assert raised.value.retry_after_s == 900


async def test_right_logins_made_at_once_count_nothing(node: Node) -> None:
    await node.services.accounts.add_user(ADMIN.at(NOW), "alice", PASSWORD, "user")
    made = await asyncio.gather(
        *(
            node.services.authentication.log_in(
                ANYBODY.at(NOW + timedelta(milliseconds=n)), "alice", PASSWORD
            )
            for n in range(8)
        )
    )
    assert len({issued.token_id for issued in made}) == 8
    async with node.database.transaction() as conn:
        for kind, key in (("login_user", "alice"), ("login_address", "192.0.2.1")):
            bucket = await rate_limits.read(conn, kind, key)
            assert bucket is not None
            assert bucket.times == ()


async def test_a_lock_of_one_name_is_not_one_of_another(node: Node) -> None:
    await node.services.accounts.add_user(ADMIN.at(NOW), "bob", PASSWORD, "user")
    for _ in range(10):
        with pytest.raises(BadCredentials):
            await node.services.authentication.log_in(ANYBODY.at(NOW), "Alice", "wrong")
    with pytest.raises(RateLimited):
        await node.services.authentication.log_in(ANYBODY.at(NOW), "ａlice", "wrong")
    assert (await node.services.authentication.log_in(ANYBODY.at(NOW), "bob", PASSWORD)).token


async def test_a_disabled_user_gets_no_token_and_may_not_use_an_old_one(site: Site) -> None:
    node, account = site.node, await site.account()
    caller = RequestContext(utcnow(), subject=account.subject, address_key="192.0.2.1", kind="user")
    code = await node.services.pairings.create_code(caller.at(utcnow()), "desktop-1")
    claims = await node.backend.tokens.verify_access(account.token, utcnow())
    await node.services.accounts.set_disabled(ADMIN.at(utcnow()), account.username, True)
    with pytest.raises(Forbidden, match="disabled"):
        await node.services.authentication.issue_access_token(ADMIN.at(utcnow()), account.username, None)
    for act in (
        node.services.authentication.issue_ws_token(caller.at(utcnow()), claims, "desktop", None),
        node.services.pairings.create_code(caller.at(utcnow()), "desktop-2"),
        node.services.pairings.redeem_code(caller.at(utcnow()), code.code, "mobile-1"),
        node.services.pairings.list_own(caller),
        node.services.pairings.unpair(caller.at(utcnow()), code.pairing_id),
        node.services.membership.identify(caller.at(utcnow()), "desktop-1", "desktop"),
        node.services.membership.admit(caller.at(utcnow()), code.channel, "desktop", "desktop-1"),
    ):
        with pytest.raises(InvalidToken):
            await act
    await node.services.accounts.set_disabled(ADMIN.at(utcnow()), account.username, False)
    assert (
        await node.services.pairings.redeem_code(caller.at(utcnow()), code.code, "mobile-1")
    ).code == code.code


async def test_a_disabled_user_joins_no_channel_on_an_open_connection(site: Site) -> None:
    account = await site.account()
    channel = f"pair-{await site.code(account, 'desktop-1')}"
    socket = await site.connect(account, "desktop")
    await site.node.services.accounts.set_disabled(ADMIN.at(utcnow()), account.username, True)
    socket.send(
        {
            "type": "join_channel",
            "channel": channel,
            "device_type": "desktop",
            "session_id": "desktop-1",
        }
    )
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert site.node.hub.channels == {}


async def test_a_token_of_a_deleted_account_is_refused_and_a_foreign_one_is_not_checked(
    node: Node,
) -> None:
    async with node.database.transaction() as conn:
        for subject in (str(uuid4()), "no uuid"):
            with pytest.raises(InvalidToken):
                await account_status.require_login(conn, RequestContext(utcnow(), subject))
        await account_status.require_login(conn, RequestContext(utcnow(), "https://id.example|alice"))
        await account_status.require_login(conn, RequestContext(utcnow()))
