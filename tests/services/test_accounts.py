"""Accounts: what HTTP answers do not show of making and changing them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import (
    Forbidden,
    NotFound,
    UsernameTaken,
    ValidationFailed,
)
from pairing_server.request_context import RequestContext
from pairing_server.server.server import Node
from pairing_server.store import users
from tests.services.conftest import stored_hash

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"
ADMIN = RequestContext(utcnow(), kind="admin")
ANYBODY = RequestContext(utcnow(), address="192.0.2.1", address_key="192.0.2.1")


async def test_a_password_is_stored_only_as_a_hash_of_its_own(node: Node) -> None:
    for name in ("alice", "bob"):
        await node.services.accounts.add_user(ADMIN.at(NOW), name, PASSWORD, "user")
    one, other = await stored_hash(node, "alice"), await stored_hash(node, "bob")
    assert one.startswith("$argon2id$")
    assert PASSWORD not in one
    assert one != other


async def test_registration_obeys_the_setting_and_the_command_does_not(node: Node) -> None:
    node.backend.rules.registration_open = False
    with pytest.raises(Forbidden):
        await node.services.accounts.register(ANYBODY.at(NOW), "alice", PASSWORD)
    made = await node.services.accounts.add_user(ADMIN.at(NOW), "alice", PASSWORD, "admin")
    node.backend.rules.registration_open = True
    assert (made.role, made.created_at, made.disabled_at) == ("admin", NOW, None)
    with pytest.raises(UsernameTaken):
        await node.services.accounts.register(ANYBODY.at(NOW), "ALICE", PASSWORD)
    assert (await node.services.accounts.register(ANYBODY.at(NOW), "bob", PASSWORD)).role == "user"
    assert [user.username for user in await node.services.accounts.list_users()] == ["alice", "bob"]


async def test_an_act_on_an_unknown_user_is_refused(node: Node) -> None:
    for act in (
        node.services.accounts.set_disabled(ADMIN.at(NOW), "nobody", True),
        node.services.accounts.set_password(ADMIN.at(NOW), "nobody", PASSWORD),
        node.services.accounts.set_role(ADMIN.at(NOW), "nobody", "admin"),
        node.services.authentication.issue_access_token(ADMIN.at(NOW), "nobody", None),
    ):
        with pytest.raises(NotFound, match="nobody"):
            await act


async def test_a_changed_password_obeys_the_rules_of_a_new_one(node: Node) -> None:
    await node.services.accounts.add_user(ADMIN.at(NOW), "alice", PASSWORD, "user")
    with pytest.raises(ValidationFailed):
        await node.services.accounts.set_password(ADMIN.at(NOW), "alice", "short")
    assert (await node.services.authentication.log_in(ANYBODY.at(NOW), "alice", PASSWORD)).token


async def test_disabling_twice_changes_nothing_the_second_time(node: Node) -> None:
    await node.services.accounts.add_user(ADMIN.at(NOW), "alice", PASSWORD, "user")
    later = NOW + timedelta(hours=1)
    assert await node.services.accounts.set_disabled(ADMIN.at(NOW), "alice", True)
    assert not await node.services.accounts.set_disabled(ADMIN.at(later), "alice", True)
    [alice] = await node.services.accounts.list_users()
    assert alice.disabled_at == NOW
    assert await node.services.accounts.set_disabled(ADMIN.at(later), "alice", False)
    assert not await node.services.accounts.set_disabled(ADMIN.at(later), "alice", False)


async def test_only_enabled_built_in_users_have_a_role(node: Node) -> None:
    auditor = await node.services.accounts.add_user(ADMIN.at(NOW), "alice", PASSWORD, "auditor")
    async with node.database.transaction() as conn:
        assert await users.role_of(conn, auditor.subject) == "auditor"
        for subject in (None, str(uuid4()), "https://id.example|alice"):
            assert await users.role_of(conn, subject) is None
    await node.services.accounts.set_disabled(ADMIN.at(NOW), "alice", True)
    async with node.database.transaction() as conn:
        assert await users.role_of(conn, auditor.subject) is None
