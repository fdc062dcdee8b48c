"""Wrong codes over time: how long a lock lasts, how it grows, and what is forgotten. And new accounts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import quote

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import BadCredentials, InvalidCode, RateLimited, ValidationFailed
from pairing_server.request_context import RequestContext, system
from pairing_server.services import rate_limits
from pairing_server.services.rate_limits import LimitKey
from tests.conftest import CONFIGURATION, StartNode
from tests.devices import Account, Site

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ADDRESS = "203.0.113.7"
PASSWORD = "correct horse battery"
_strangers = count()


@pytest.fixture
def any_user(start_node: StartNode) -> Site:
    return start_node(redeem_policy="any_user")


def user(name: str, address: str = ADDRESS) -> RequestContext:
    return RequestContext(
        utcnow(), subject=f"https://id.example.com|{name}", address=address, address_key=address, kind="user"
    )


def stranger(address: str = ADDRESS) -> RequestContext:
    """A new user each time, so that only the address counts."""
    return user(f"stranger-{next(_strangers)}", address)


async def attempt(site: Site, context: RequestContext) -> None:
    """Redeem a code that does not exist: there is no pairing in the databases of these tests."""
    session_id = "mobile-" + str(context.subject).rpartition("|")[2]
    await site.node.services.pairings.redeem_code(context, "000000", session_id)


async def fail(site: Site, context: RequestContext) -> None:
    with pytest.raises(InvalidCode):
        await attempt(site, context)


async def locked_for(site: Site, context: RequestContext) -> float:
    """How many seconds this caller has to wait, by the answer."""
    with pytest.raises(RateLimited) as refused:
        await attempt(site, context)
    return refused.value.retry_after_s


async def test_an_address_that_keeps_failing_is_locked_5_15_60_minutes_and_then_a_day(any_user: Site) -> None:
    now = NOW
    for seconds in (300, 900, 3600, 86400, 86400):
        for _ in range(5):
            await fail(any_user, stranger().at(now))
        assert await locked_for(any_user, stranger().at(now)) == seconds
        now += timedelta(seconds=seconds)
        assert await locked_for(any_user, stranger().at(now - timedelta(seconds=1))) == 1
    await fail(any_user, stranger("203.0.113.8").at(NOW))
    lockouts = await any_user.events("auth.lockout")
    assert [event["scope"] for event in lockouts] == ["redeem_address"] * 5
    assert lockouts[0]["until"] == (NOW + timedelta(seconds=300)).isoformat()


async def test_a_day_without_a_lock_forgets_how_long_the_last_was(any_user: Site) -> None:
    for _ in range(5):
        await fail(any_user, stranger().at(NOW))
    calm = NOW + timedelta(seconds=300) + timedelta(days=1, seconds=1)
    for _ in range(5):
        await fail(any_user, stranger().at(calm))
    assert await locked_for(any_user, stranger().at(calm)) == 300


async def test_five_failures_spread_over_more_than_five_minutes_lock_no_address(any_user: Site) -> None:
    for n in range(8):
        await fail(any_user, stranger().at(NOW + n * timedelta(seconds=75)))
    assert await any_user.events("auth.lockout") == []
    # One that comes a second too early is the fifth within five minutes.
    early = NOW + 8 * timedelta(seconds=75) - timedelta(seconds=1)
    await fail(any_user, stranger().at(early))
    assert await locked_for(any_user, stranger().at(early)) == 300


async def test_tries_while_locked_do_not_lengthen_the_lock(any_user: Site) -> None:
    for _ in range(5):
        await fail(any_user, stranger().at(NOW))
    for _ in range(10):
        assert await locked_for(any_user, stranger().at(NOW + timedelta(seconds=60))) == 240
    await fail(any_user, stranger().at(NOW + timedelta(seconds=300)))


async def test_a_user_is_locked_for_an_hour_after_ten_failures_in_fifteen_minutes(site: Site) -> None:
    ada = user("ada")
    for n in range(10):
        await fail(site, ada.at(NOW + n * timedelta(seconds=99)))
    last = NOW + 9 * timedelta(seconds=99)
    assert await locked_for(site, ada.at(last)) == 3600
    # From another address as well: it is the user who is locked.
    assert await locked_for(site, user("ada", "203.0.113.8").at(last)) == 3600
    await fail(site, user("grace").at(last))
    await fail(site, ada.at(last + timedelta(hours=1)))


async def test_a_user_is_locked_after_thirty_failures_in_a_day(site: Site) -> None:
    ada = user("ada")
    for n in range(30):
        await fail(site, ada.at(NOW + n * timedelta(minutes=40)))
    assert await locked_for(site, ada.at(NOW + 29 * timedelta(minutes=40))) == 3600
    # A day after the first ones there is room again.
    await fail(site, ada.at(NOW + timedelta(days=1, minutes=45)))


async def test_with_same_user_failures_never_lock_an_address_for_those_with_an_account(site: Site) -> None:
    for _ in range(12):
        await fail(site, stranger().at(NOW))
    # The address is locked for guests all the same.
    assert {event["scope"] for event in await site.events("auth.lockout")} == {"redeem_address"}


async def test_pruning_forgets_no_lock_that_still_holds(any_user: Site) -> None:
    now = NOW
    for seconds in (300, 900, 3600, 86400):
        for _ in range(5):
            await fail(any_user, stranger().at(now))
        now += timedelta(seconds=seconds)
    await any_user.node.backend.expiry.prune(now - timedelta(seconds=1))
    assert await locked_for(any_user, stranger().at(now - timedelta(seconds=1))) == 1
    # Its step is remembered for a day more, then everything is forgotten.
    assert await any_user.node.backend.expiry.prune(now + timedelta(days=3)) > 0
    for _ in range(5):
        await fail(any_user, stranger().at(now + timedelta(days=3)))
    assert await locked_for(any_user, stranger().at(now + timedelta(days=3))) == 300


async def test_an_address_makes_thirty_accounts_in_fifteen_minutes(site: Site) -> None:
    node, here = site.node, RequestContext(utcnow(), address=ADDRESS, address_key=ADDRESS)
    made = LimitKey("register_address", ADDRESS, CONFIGURATION.attempt_policies.register_address)
    # Thirty passwords are not hashed for this.
    async with node.database.transaction() as conn:
        for _ in range(29):
            await (await rate_limits.hold(conn, [made], NOW)).charge(NOW)
    await node.services.accounts.register(here.at(NOW), "the-thirtieth", PASSWORD)
    with pytest.raises(RateLimited) as refused:
        await node.services.accounts.register(here.at(NOW + timedelta(minutes=5)), "one-more", PASSWORD)
    assert (refused.value.retry_after_s, refused.value.details) == (600, {"limit": "register_address"})
    elsewhere = RequestContext(utcnow(), address="203.0.113.8", address_key="203.0.113.8")
    await node.services.accounts.register(elsewhere.at(NOW), "elsewhere", PASSWORD)
    await node.services.accounts.register(here.at(NOW + timedelta(minutes=15)), "one-more", PASSWORD)


async def test_an_account_that_cannot_be_made_does_not_count(site: Site) -> None:
    node, here = site.node, RequestContext(utcnow(), address=ADDRESS, address_key=ADDRESS)
    for _ in range(31):
        with pytest.raises(ValidationFailed):
            await node.services.accounts.register(here.at(NOW), "ada", "too short")
    assert (await node.services.accounts.register(here.at(NOW), "ada", PASSWORD)).username == "ada"


# Whom a stranger cannot lock out


async def test_failures_of_others_behind_an_address_do_not_lock_a_user_out_of_own_codes(
    any_user: Site,
) -> None:
    ada, grace = user("ada"), user("grace", "203.0.113.8")
    own = await any_user.node.services.pairings.create_code(ada.at(NOW), "desktop-of-ada")
    anothers = await any_user.node.services.pairings.create_code(grace.at(NOW), "desktop-of-grace")
    for _ in range(5):
        await fail(any_user, stranger().at(NOW))
    node = any_user.node
    with pytest.raises(RateLimited):
        await node.services.pairings.redeem_code(ada.at(NOW), anothers.code, "mobile-of-ada")
    with pytest.raises(RateLimited):
        await attempt(any_user, ada.at(NOW))
    assert (
        await node.services.pairings.redeem_code(ada.at(NOW), own.code, "mobile-of-ada")
    ).pairing_id == own.pairing_id


async def test_a_users_own_failures_lock_the_user_out_of_own_codes(any_user: Site) -> None:
    ada = user("ada")
    own = await any_user.node.services.pairings.create_code(ada.at(NOW), "desktop-of-ada")
    for number in range(10):
        await fail(any_user, user("ada", f"198.51.100.{number}").at(NOW))
    with pytest.raises(RateLimited):
        await any_user.node.services.pairings.redeem_code(ada.at(NOW), own.code, "mobile-of-ada")


async def test_a_locked_login_ends_within_15_minutes_and_leaves_tokens_valid(site: Site) -> None:
    """Live tokens go on, and the lock is over within a quarter of an hour."""
    node = site.node
    victim = await site.account("victim")
    await node.services.accounts.set_password(system(NOW), "victim", PASSWORD)
    fresh = Account(
        victim.subject, "victim", node.backend.tokens.issue_access(victim.subject, utcnow()).token
    )
    desktop, mobile = await site.pair(fresh)
    attacker = RequestContext(utcnow(), address=ADDRESS, address_key=ADDRESS)
    for number in range(10):
        with pytest.raises(BadCredentials):
            await node.services.authentication.log_in(
                attacker.at(NOW + number * timedelta(seconds=1)), "victim", "wrong wrong wrong"
            )
    at_home = RequestContext(utcnow(), address="198.51.100.1", address_key="198.51.100.1")
    with pytest.raises(RateLimited) as refused:
        await node.services.authentication.log_in(at_home.at(NOW + timedelta(seconds=10)), "victim", PASSWORD)
    assert refused.value.retry_after_s <= 900
    mobile.socket.send({"type": "channel_message", "payload": {"still": "here"}})
    assert (await desktop.socket.expect("channel_message"))["payload"] == {"still": "here"}
    code = await site.code(fresh, "desktop-session")
    assert (await site.redeem(fresh, code, "mobile-session")).status == 200
    await node.services.authentication.log_in(at_home.at(NOW + timedelta(seconds=900)), "victim", PASSWORD)


# Seeing and lifting


async def test_an_admin_lists_and_lifts_lock_outs(any_user: Site) -> None:
    node = any_user.node
    now = utcnow()
    ada = user("ada")
    for _ in range(10):
        await fail(any_user, user("ada", f"198.51.100.{_}").at(now))
    for _ in range(5):
        await fail(any_user, stranger("2001:db8::/64").at(now))
    admin = await any_user.account(role="admin")
    listed = (await any_user.get("/api/lockouts", admin.token)).body["lockouts"]
    assert [(one["kind"], one["key"], one["level"]) for one in listed] == [
        ("redeem_user", ada.subject, 1),
        ("redeem_address", "2001:db8::/64", 1),
    ]
    path = f"/api/lockouts/redeem_user/{quote(str(ada.subject), safe='')}"
    assert (await any_user.call("DELETE", path, None, admin.token)).status == 200
    await fail(any_user, ada.at(now))
    assert (
        await any_user.call("DELETE", path, None, admin.token)
    ).status == 200  # one failure stands against her
    gone = await any_user.call("DELETE", path, None, admin.token)
    assert (gone.status, gone.error) == (404, "NOT_FOUND")
    address = f"/api/lockouts/redeem_address/{quote('2001:db8::/64', safe='')}"
    assert (await any_user.call("DELETE", address, None, admin.token)).status == 200
    assert (await any_user.get("/api/lockouts", admin.token)).body["lockouts"] == []
    lifted = [event for event in await any_user.events("auth.lockout") if event["reason"] == "lifted"]
    assert next((event["scope"], event["target"], event["outcome"]) for event in lifted) == (
        "redeem_user",
        ada.subject,
        "success",
    )
    assert {(event["command"], event["via"]) for event in await any_user.events("admin.action")} == {
        ("lockouts lift", "http")
    }
    assert node.backend.rules.same_user is False


async def test_failed_logins_are_listed_as_long_as_they_lock(site: Site) -> None:
    here = RequestContext(utcnow(), address=ADDRESS, address_key=ADDRESS)
    admin = RequestContext(utcnow(), kind="admin")
    for number in range(10):
        with pytest.raises(BadCredentials):
            await site.node.services.authentication.log_in(
                here.at(NOW + timedelta(seconds=number)), "Ada", "wrong wrong wrong"
            )
    [one] = await site.node.services.lockouts.list_all(admin.at(NOW + timedelta(seconds=60)))
    assert (one.kind, one.key, one.until) == ("login_user", "ada", NOW + timedelta(seconds=900))
    assert await site.node.services.lockouts.list_all(admin.at(NOW + timedelta(seconds=901))) == []
    await site.node.services.lockouts.lift(admin.at(NOW), "login_user", "ada")
    with pytest.raises(BadCredentials):
        await site.node.services.authentication.log_in(
            here.at(NOW + timedelta(seconds=20)), "ada", "wrong wrong wrong"
        )


@pytest.mark.parametrize("role", ["user", "auditor"])
async def test_only_an_admin_lists_or_lifts_lock_outs(site: Site, role: str) -> None:
    account = await site.account(role=role)
    for method, path in (("GET", "/api/lockouts"), ("DELETE", "/api/lockouts/redeem_user/ada")):
        answer = await site.call(method, path, None, account.token)
        assert (answer.status, answer.error) == (403, "FORBIDDEN")
    denied = await site.events("access.denied")
    assert [(event["needed"], event["actor"]) for event in denied] == [("admin", account.subject)] * 2


@pytest.mark.parametrize("path", ["nonsense/ada", "redeem_user/%00", "redeem_user/nobody"])
async def test_lifting_a_lock_out_that_does_not_exist_is_refused(site: Site, path: str) -> None:
    admin = await site.account(role="admin")
    answer = await site.call("DELETE", f"/api/lockouts/{path}", None, admin.token)
    assert (answer.status, answer.error) == (404, "NOT_FOUND")
