"""Accounts: the rules of the services that no HTTP answer shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from argon2 import PasswordHasher

from pairing_server.clock import utcnow
from pairing_server.errors import (
    BadCredentials,
    Forbidden,
    InvalidToken,
    NotFound,
    RateLimited,
    UsernameTaken,
    ValidationFailed,
)
from pairing_server.request_context import RequestContext
from pairing_server.security.passwords import Passwords
from pairing_server.services import account_status, accounts, membership, pairings
from pairing_server.services.deps import Deps
from pairing_server.store import rate_limits, users
from tests.devices import Site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"
ADMIN = RequestContext(utcnow(), kind="admin")
ANYBODY = RequestContext(utcnow(), address="192.0.2.1", address_key="192.0.2.1")


@pytest.fixture
def cheap() -> Iterator[Passwords]:
    """Passwords with parameters of long ago, or for tests that are not about them."""
    made = Passwords(hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    yield made
    made.close()


@pytest.fixture
def deps(site: Site, cheap: Passwords) -> Deps:
    return replace(site.node.deps, passwords=cheap)


async def stored_hash(deps: Deps, username: str) -> str:
    async with deps.database.transaction() as conn:
        found = await users.with_password(conn, username)
    assert found is not None
    return found[1]


async def test_a_login_renews_a_hash_with_outdated_parameters(site: Site, deps: Deps) -> None:
    await accounts.add_user(deps, "alice", PASSWORD, "user", ADMIN.at(NOW))
    old = await stored_hash(deps, "alice")
    today = site.node.deps
    with pytest.raises(BadCredentials):
        await accounts.login(today, "alice", "wrong", ANYBODY.at(NOW))
    assert await stored_hash(deps, "alice") == old
    await accounts.login(today, "alice", PASSWORD, ANYBODY.at(NOW))
    new = await stored_hash(deps, "alice")
    assert "m=19456" in new
    assert "m=19456" not in old
    await accounts.login(today, "alice", PASSWORD, ANYBODY.at(NOW))
    assert await stored_hash(deps, "alice") == new


async def test_a_password_is_stored_only_as_a_hash_of_its_own(deps: Deps) -> None:
    for name in ("alice", "bob"):
        await accounts.add_user(deps, name, PASSWORD, "user", ADMIN.at(NOW))
    one, other = await stored_hash(deps, "alice"), await stored_hash(deps, "bob")
    assert one.startswith("$argon2id$")
    assert PASSWORD not in one
    assert one != other


async def test_wrong_logins_made_at_once_are_all_counted(deps: Deps) -> None:
    await accounts.add_user(deps, "alice", PASSWORD, "user", ADMIN.at(NOW))
    tries = [accounts.login(deps, "alice", f"wrong {n}", ANYBODY.at(NOW)) for n in range(15)]
    refused = [type(error) for error in await asyncio.gather(*tries, return_exceptions=True)]
    assert (refused.count(BadCredentials), refused.count(RateLimited)) == (10, 5)
    with pytest.raises(RateLimited) as raised:
        await accounts.login(deps, "alice", PASSWORD, ANYBODY.at(NOW))
    assert raised.value.retry_after_s == 900


async def test_right_logins_made_at_once_count_nothing(deps: Deps) -> None:
    await accounts.add_user(deps, "alice", PASSWORD, "user", ADMIN.at(NOW))
    made = await asyncio.gather(
        *(
            accounts.login(deps, "alice", PASSWORD, ANYBODY.at(NOW + timedelta(milliseconds=n)))
            for n in range(8)
        )
    )
    assert len({issued.token_id for issued in made}) == 8
    async with deps.database.transaction() as conn:
        for kind, key in (("login_user", "alice"), ("login_address", "192.0.2.1")):
            bucket = await rate_limits.read(conn, kind, key)
            assert bucket is not None
            assert bucket.times == ()


async def test_a_lock_of_one_name_is_not_one_of_another(deps: Deps) -> None:
    await accounts.add_user(deps, "bob", PASSWORD, "user", ADMIN.at(NOW))
    for _ in range(10):
        with pytest.raises(BadCredentials):
            await accounts.login(deps, "Alice", "wrong", ANYBODY.at(NOW))
    with pytest.raises(RateLimited):
        await accounts.login(deps, "ａlice", "wrong", ANYBODY.at(NOW))
    assert (await accounts.login(deps, "bob", PASSWORD, ANYBODY.at(NOW))).token


async def test_registration_obeys_the_setting_and_the_command_does_not(deps: Deps) -> None:
    closed = replace(deps, registration_open=False)
    with pytest.raises(Forbidden):
        await accounts.register(closed, "alice", PASSWORD, ANYBODY.at(NOW))
    made = await accounts.add_user(closed, "alice", PASSWORD, "admin", ADMIN.at(NOW))
    assert (made.role, made.created_at, made.disabled_at) == ("admin", NOW, None)
    with pytest.raises(UsernameTaken):
        await accounts.register(deps, "ALICE", PASSWORD, ANYBODY.at(NOW))
    assert (await accounts.register(deps, "bob", PASSWORD, ANYBODY.at(NOW))).role == "user"
    assert [user.username for user in await accounts.list_users(deps)] == ["alice", "bob"]


async def test_what_is_done_to_an_unknown_user_is_refused(deps: Deps) -> None:
    for act in (
        accounts.set_disabled(deps, "nobody", True, ADMIN.at(NOW)),
        accounts.set_password(deps, "nobody", PASSWORD, ADMIN.at(NOW)),
        accounts.set_role(deps, "nobody", "admin", ADMIN.at(NOW)),
        accounts.issue_access_token(deps, "nobody", None, ADMIN.at(NOW)),
    ):
        with pytest.raises(NotFound, match="nobody"):
            await act


async def test_a_new_password_must_be_as_good_as_a_first_one(deps: Deps) -> None:
    await accounts.add_user(deps, "alice", PASSWORD, "user", ADMIN.at(NOW))
    with pytest.raises(ValidationFailed):
        await accounts.set_password(deps, "alice", "short", ADMIN.at(NOW))
    assert (await accounts.login(deps, "alice", PASSWORD, ANYBODY.at(NOW))).token


async def test_disabling_twice_changes_nothing_the_second_time(deps: Deps) -> None:
    await accounts.add_user(deps, "alice", PASSWORD, "user", ADMIN.at(NOW))
    later = NOW + timedelta(hours=1)
    assert await accounts.set_disabled(deps, "alice", True, ADMIN.at(NOW))
    assert not await accounts.set_disabled(deps, "alice", True, ADMIN.at(later))
    [alice] = await accounts.list_users(deps)
    assert alice.disabled_at == NOW
    assert await accounts.set_disabled(deps, "alice", False, ADMIN.at(later))
    assert not await accounts.set_disabled(deps, "alice", False, ADMIN.at(later))


async def test_a_disabled_user_gets_no_token_and_does_nothing_with_those_he_has(site: Site) -> None:
    deps, account = site.node.deps, await site.account()
    caller = RequestContext(utcnow(), subject=account.subject, address_key="192.0.2.1", kind="user")
    code = await pairings.generate(deps, "desktop-1", caller.at(utcnow()))
    claims = await deps.tokens.verify_access(account.token, utcnow())
    await accounts.set_disabled(deps, account.username, True, ADMIN.at(utcnow()))
    with pytest.raises(Forbidden, match="disabled"):
        await accounts.issue_access_token(deps, account.username, None, ADMIN.at(utcnow()))
    for act in (
        accounts.issue_ws_token(deps, claims, "desktop", None, caller.at(utcnow())),
        pairings.generate(deps, "desktop-2", caller.at(utcnow())),
        pairings.redeem(deps, code.code, "mobile-1", caller.at(utcnow())),
        pairings.list_own(deps, caller),
        pairings.unpair(deps, code.pairing_id, caller.at(utcnow())),
        membership.identify(deps, "desktop-1", "desktop", caller.at(utcnow())),
        membership.admit(deps, code.channel, "desktop", "desktop-1", caller.at(utcnow())),
    ):
        with pytest.raises(InvalidToken):
            await act
    await accounts.set_disabled(deps, account.username, False, ADMIN.at(utcnow()))
    assert (await pairings.redeem(deps, code.code, "mobile-1", caller.at(utcnow()))).code == code.code


async def test_a_disabled_user_joins_no_channel_with_a_socket_that_is_open_already(site: Site) -> None:
    # The timer would close the socket before it has asked.
    site.node.scheduler.stop()
    await site.node.scheduler.settled()
    account = await site.account()
    channel = f"pair-{await site.code(account, 'desktop-1')}"
    socket = await site.connect(account, "desktop")
    await accounts.set_disabled(site.node.deps, account.username, True, ADMIN.at(utcnow()))
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


async def test_a_token_of_an_account_that_is_gone_is_refused_and_a_foreign_one_is_its_issuers(
    deps: Deps,
) -> None:
    async with deps.database.transaction() as conn:
        for subject in (str(uuid4()), "no uuid"):
            with pytest.raises(InvalidToken):
                await account_status.require_enabled(conn, subject)
        await account_status.require_enabled(conn, "https://id.example|alice")
        await account_status.require_enabled(conn, None)


async def test_only_enabled_built_in_users_have_a_role(deps: Deps) -> None:
    auditor = await accounts.add_user(deps, "alice", PASSWORD, "auditor", ADMIN.at(NOW))
    async with deps.database.transaction() as conn:
        assert await users.role_of(conn, auditor.subject) == "auditor"
        for subject in (None, str(uuid4()), "https://id.example|alice"):
            assert await users.role_of(conn, subject) is None
    await accounts.set_disabled(deps, "alice", True, ADMIN.at(NOW))
    async with deps.database.transaction() as conn:
        assert await users.role_of(conn, auditor.subject) is None
