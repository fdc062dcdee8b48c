"""What is counted of logins and registrations: failures of the caller and successes, and nothing that the server could not do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher

from pairing_server.clock import utcnow
from pairing_server.errors import BadCredentials, RateLimited, Unavailable
from pairing_server.request_context import RequestContext
from pairing_server.security.limits import Rate
from pairing_server.security.passwords import Passwords
from pairing_server.server.server import Node
from pairing_server.store import rate_limits
from tests.devices import Site
from tests.websocket.raw_pair import until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"
ADMIN = RequestContext(utcnow(), kind="admin")
SCHOOL = RequestContext(NOW, address="192.0.2.1", address_key="192.0.2.1")
HOME = RequestContext(NOW, address="192.0.2.9", address_key="192.0.2.9")


async def counted(node: Node, kind: str, key: str) -> int:
    async with node.database.transaction() as conn:
        bucket = await rate_limits.read(conn, kind, key)
    return len(bucket.times) if bucket else 0


async def add(node: Node, *names: str) -> None:
    for name in names:
        await node.services.accounts.add_user(ADMIN.at(NOW), name, PASSWORD, "user")


async def test_seventy_five_right_logins_of_one_address_at_once_lock_nobody_out(node: Node) -> None:
    names = [f"pupil-{number}" for number in range(75)]
    await add(node, *names)
    service = node.services.authentication
    made = await asyncio.gather(
        *(
            service.log_in(SCHOOL.at(NOW + timedelta(milliseconds=n)), name, PASSWORD)
            for n, name in enumerate(names)
        )
    )
    assert len(made) == 75
    assert await counted(node, "login_address", "192.0.2.1") == 0


@pytest.mark.parametrize("when", ["at once", "once it is counted"])
async def test_what_the_server_cannot_check_does_not_count(node: Node, cheap: Passwords, when: str) -> None:
    await add(node, "alice")
    if when == "at once":
        # No thread is free, and no caller may wait.
        while cheap._slots.acquire(blocking=False):
            pass
    else:
        cheap.close()
    for _ in range(40):
        with pytest.raises(Unavailable):
            await node.services.authentication.log_in(SCHOOL, "alice", PASSWORD)
        with pytest.raises(Unavailable):
            await node.services.accounts.register(SCHOOL, "bob", PASSWORD)
    for kind, key in (
        ("login_user", "alice"),
        ("login_address", "192.0.2.1"),
        ("register_address", "192.0.2.1"),
    ):
        assert await counted(node, kind, key) == 0


async def test_a_wrong_guess_of_the_same_moment_counts_although_a_right_one_takes_itself_back(
    node: Node,
) -> None:
    await add(node, "alice", "bob")
    service = node.services.authentication
    with pytest.raises(BadCredentials):
        await service.log_in(SCHOOL, "alice", "wrong")
    await service.log_in(SCHOOL, "bob", PASSWORD)
    assert await counted(node, "login_address", "192.0.2.1") == 1


async def test_right_passwords_have_a_bound_a_user_and_an_address(site: Site, node: Node) -> None:
    site.node.reload(replace(site.node.config, login_rate=Rate(3, 300), login_rate_address=Rate(5, 300)))
    await add(node, "alice", "bob", "carol")
    service = node.services.authentication

    async def limit(name: str, context: RequestContext) -> str:
        try:
            await service.log_in(context, name, PASSWORD)
        except RateLimited as error:
            assert 0 < error.retry_after_s <= 300
            return str(error.details["limit"])
        return ""

    assert [await limit("alice", SCHOOL) for _ in range(4)] == ["", "", "", "login_user"]
    assert await limit("alice", HOME) == "login_user", "from anywhere"
    assert [await limit("bob", SCHOOL) for _ in range(3)] == ["", "", "login_address"]
    assert await limit("bob", HOME) == "", "elsewhere others are served"
    assert await limit("alice", SCHOOL.at(NOW + timedelta(seconds=301))) == ""


async def test_failed_logins_and_new_accounts_of_an_address_are_settings(site: Site, node: Node) -> None:
    config = replace(
        site.node.config, login_failures_address=Rate(2, 900), register_rate_address=Rate(1, 900)
    )
    site.node.reload(config)
    service = node.services.authentication
    for name, error in (("anna", BadCredentials), ("ben", BadCredentials), ("carl", RateLimited)):
        with pytest.raises(error):
            await service.log_in(SCHOOL, name, "wrong password")
    await node.services.accounts.register(SCHOOL, "anna", PASSWORD)
    with pytest.raises(RateLimited):
        await node.services.accounts.register(SCHOOL, "ben", PASSWORD)
    site.node.reload(replace(config, login_failures_address=Rate(3, 900), register_rate_address=Rate(2, 900)))
    with pytest.raises(BadCredentials):
        await service.log_in(SCHOOL, "carl", "wrong password")
    await node.services.accounts.register(SCHOOL, "ben", PASSWORD)


class Held(PasswordHasher):
    """Checks no password before `released`."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.released = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # noqa: A002
        self.released.wait(60)
        return super().verify(hash, password)  # type: ignore[return-value]


@pytest.fixture
def held() -> Iterator[Held]:
    hasher = Held()
    yield hasher
    hasher.released.set()


async def test_an_address_leaves_room_in_the_queue_for_others(site: Site, node: Node, held: Held) -> None:
    await add(node, *(f"pupil-{number}" for number in range(20)), "alice")
    passwords = Passwords(threads=1, queue=7, hasher=held)
    site.use(authentication=replace(node.services.authentication, passwords=passwords))
    service = site.node.services.authentication
    logins = [
        asyncio.ensure_future(service.log_in(SCHOOL, f"pupil-{number}", PASSWORD)) for number in range(20)
    ]
    await until(lambda: service.checks._locks.get("192.0.2.1", (None, 0))[1] == 20)
    await until(lambda: passwords._slots._value == 4)
    other = asyncio.ensure_future(service.log_in(HOME, "alice", PASSWORD))
    await until(lambda: passwords._slots._value == 3)
    held.released.set()
    assert (await other).token
    assert len({issued.token_id for issued in await asyncio.gather(*logins)}) == 20
    passwords.close()
