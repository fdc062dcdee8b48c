"""Accounts whose passwords cost little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from argon2 import PasswordHasher

from pairing_server.security.passwords import Passwords
from pairing_server.server.server import Node
from pairing_server.store import users
from tests.devices import Site


@pytest.fixture
def cheap() -> Iterator[Passwords]:
    """Passwords with parameters of long ago, or for tests that are not about them."""
    made = Passwords(hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    yield made
    made.close()


@pytest.fixture
def node(site: Site, cheap: Passwords) -> Node:
    today = site.node.services
    site.use(
        accounts=replace(today.accounts, passwords=cheap),
        authentication=replace(today.authentication, passwords=cheap),
    )
    return site.node


async def stored_hash(node: Node, username: str) -> str:
    async with node.database.transaction() as conn:
        found = await users.with_password(conn, username)
    assert found is not None
    return found[1]
