"""Wrong codes over time: how long a lock lasts, how it grows, and what is forgotten. And new accounts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from pairing_server.errors import InvalidCode, RateLimited, ValidationFailed
from pairing_server.security.limits import REGISTER_ADDRESS
from pairing_server.services import accounts, attempts, lifetimes, pairings
from pairing_server.services.attempts import Counted
from pairing_server.services.deps import Caller
from tests.conftest import StartNode
from tests.devices import Site

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ADDRESS = "203.0.113.7"
PASSWORD = "correct horse battery"
_strangers = count()


@pytest.fixture
def any_user(start_node: StartNode) -> Site:
    return start_node(redeem_policy="any_user")


def user(name: str, address: str = ADDRESS) -> Caller:
    return Caller(f"https://id.example.com|{name}", None, address, address, kind="user")


def stranger(address: str = ADDRESS) -> Caller:
    """A new user each time, so that only the address counts."""
    return user(f"stranger-{next(_strangers)}", address)


async def attempt(site: Site, caller: Caller, now: datetime) -> None:
    """Redeem a code that does not exist: there is no pairing in the databases of these tests."""
    session_id = "mobile-" + str(caller.subject).rpartition("|")[2]
    await pairings.redeem(site.node.deps, "000000", session_id, caller, now)


async def fail(site: Site, caller: Caller, now: datetime) -> None:
    with pytest.raises(InvalidCode):
        await attempt(site, caller, now)


async def locked_for(site: Site, caller: Caller, now: datetime) -> float:
    """How many seconds this caller is told to wait."""
    with pytest.raises(RateLimited) as refused:
        await attempt(site, caller, now)
    return refused.value.retry_after_s


async def test_an_address_that_goes_on_is_locked_5_15_60_minutes_and_then_a_day(any_user: Site) -> None:
    now = NOW
    for seconds in (300, 900, 3600, 86400, 86400):
        for _ in range(5):
            await fail(any_user, stranger(), now)
        assert await locked_for(any_user, stranger(), now) == seconds
        now += timedelta(seconds=seconds)
        assert await locked_for(any_user, stranger(), now - timedelta(seconds=1)) == 1
    await fail(any_user, stranger("203.0.113.8"), NOW)
    lockouts = await any_user.events("auth.lockout")
    assert [event["scope"] for event in lockouts] == ["redeem_address"] * 5
    assert lockouts[0]["until"] == (NOW + timedelta(seconds=300)).isoformat()


async def test_a_day_without_a_lock_forgets_how_long_the_last_was(any_user: Site) -> None:
    for _ in range(5):
        await fail(any_user, stranger(), NOW)
    calm = NOW + timedelta(seconds=300) + timedelta(days=1, seconds=1)
    for _ in range(5):
        await fail(any_user, stranger(), calm)
    assert await locked_for(any_user, stranger(), calm) == 300


async def test_five_failures_spread_over_more_than_five_minutes_lock_no_address(any_user: Site) -> None:
    for n in range(8):
        await fail(any_user, stranger(), NOW + n * timedelta(seconds=75))


async def test_tries_while_locked_do_not_lengthen_the_lock(any_user: Site) -> None:
    for _ in range(5):
        await fail(any_user, stranger(), NOW)
    for _ in range(10):
        assert await locked_for(any_user, stranger(), NOW + timedelta(seconds=60)) == 240
    await fail(any_user, stranger(), NOW + timedelta(seconds=300))


async def test_a_user_is_locked_for_an_hour_after_ten_failures_in_fifteen_minutes(site: Site) -> None:
    ada = user("ada")
    for n in range(10):
        await fail(site, ada, NOW + n * timedelta(seconds=99))
    last = NOW + 9 * timedelta(seconds=99)
    assert await locked_for(site, ada, last) == 3600
    # From another address as well: it is the user who is locked.
    assert await locked_for(site, user("ada", "203.0.113.8"), last) == 3600
    await fail(site, user("grace"), last)
    await fail(site, ada, last + timedelta(hours=1))


async def test_a_user_is_locked_after_thirty_failures_in_a_day(site: Site) -> None:
    ada = user("ada")
    for n in range(30):
        await fail(site, ada, NOW + n * timedelta(minutes=40))
    assert await locked_for(site, ada, NOW + 29 * timedelta(minutes=40)) == 3600
    # A day after the first ones there is room again.
    await fail(site, ada, NOW + timedelta(days=1, minutes=45))


async def test_with_same_user_failures_never_lock_an_address_for_those_with_an_account(site: Site) -> None:
    for _ in range(12):
        await fail(site, stranger(), NOW)


async def test_pruning_forgets_no_lock_that_still_holds(any_user: Site) -> None:
    now = NOW
    for seconds in (300, 900, 3600, 86400):
        for _ in range(5):
            await fail(any_user, stranger(), now)
        now += timedelta(seconds=seconds)
    await lifetimes.prune(any_user.node.deps, now - timedelta(seconds=1))
    assert await locked_for(any_user, stranger(), now - timedelta(seconds=1)) == 1
    # Its step is remembered for a day more, then everything is forgotten.
    assert await lifetimes.prune(any_user.node.deps, now + timedelta(days=3)) > 0
    for _ in range(5):
        await fail(any_user, stranger(), now + timedelta(days=3))
    assert await locked_for(any_user, stranger(), now + timedelta(days=3)) == 300


async def test_an_address_makes_thirty_accounts_in_fifteen_minutes(site: Site) -> None:
    deps, here = site.node.deps, Caller(None, None, ADDRESS, ADDRESS)
    made = Counted("register_address", ADDRESS, REGISTER_ADDRESS)
    # Thirty passwords are not hashed for this.
    async with deps.database.transaction() as conn:
        for _ in range(29):
            await (await attempts.hold(conn, [made], NOW)).charge(NOW)
    await accounts.register(deps, "the-thirtieth", PASSWORD, here, NOW)
    with pytest.raises(RateLimited) as refused:
        await accounts.register(deps, "one-more", PASSWORD, here, NOW + timedelta(minutes=5))
    assert (refused.value.retry_after_s, refused.value.details) == (600, {"limit": "register_address"})
    elsewhere = Caller(None, None, "203.0.113.8", "203.0.113.8")
    await accounts.register(deps, "elsewhere", PASSWORD, elsewhere, NOW)
    await accounts.register(deps, "one-more", PASSWORD, here, NOW + timedelta(minutes=15))


async def test_an_account_that_cannot_be_made_does_not_count(site: Site) -> None:
    deps, here = site.node.deps, Caller(None, None, ADDRESS, ADDRESS)
    for _ in range(31):
        with pytest.raises(ValidationFailed):
            await accounts.register(deps, "ada", "too short", here, NOW)
    assert (await accounts.register(deps, "ada", PASSWORD, here, NOW)).username == "ada"
