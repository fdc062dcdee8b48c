"""What guessing codes comes to: from one account, from one address, and from many of each."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import ConfirmationNeeded, InvalidCode, RateLimited
from pairing_server.request_context import RequestContext
from tests.conftest import StartNode
from tests.devices import Site

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def any_user(start_node: StartNode) -> Site:
    return start_node(redeem_policy="any_user")


def user(name: object, address: str) -> RequestContext:
    return RequestContext(
        utcnow(), subject=f"https://id.example.com|{name}", address=address, address_key=address, kind="user"
    )


async def guess(site: Site, code: str, context: RequestContext) -> str:
    """What comes of a guess, in a word."""
    session_id = "mobile-" + str(context.subject).rpartition("|")[2]
    try:
        await site.node.services.pairings.redeem_code(context, code, session_id)
    except InvalidCode:
        return "tried"
    except RateLimited:
        return "locked"
    except ConfirmationNeeded:
        return "asked"
    return "paired"


@pytest.mark.timeout(seconds=600)
async def test_one_account_has_thirty_guesses_and_then_one_an_hour_from_any_number_of_addresses(
    any_user: Site,
) -> None:
    """Some fifty on the first day, thirty on each after it: with a thousand live codes a chance of 5 %, then 3 %."""
    found: Counter[str] = Counter()
    for minute in range(0, 24 * 60, 10):
        for n in range(3):
            caller = user("guesser", f"198.51.{minute // 10}.{n}")
            found[await guess(any_user, "000000", caller.at(NOW + timedelta(minutes=minute, seconds=n)))] += 1
    assert 30 <= found["tried"] <= 53
    assert found.total() == found["tried"] + found["locked"] == 24 * 6 * 3
    assert len(await any_user.events("pairing.redeem")) == 24 * 6 * 3


async def test_one_address_has_five_guesses_with_any_number_of_accounts(any_user: Site) -> None:
    outcomes = [await guess(any_user, "000000", user(n, "203.0.113.9").at(NOW)) for n in range(20)]
    assert outcomes == ["tried"] * 5 + ["locked"] * 15


async def test_guesses_of_two_hundred_accounts_activate_the_guard_and_a_right_guess_needs_confirmation(
    any_user: Site,
) -> None:
    """A guess each, five a second: none of their own limits sees them. In the end every live code is hit."""
    codes = {
        (
            await any_user.node.services.pairings.create_code(
                user(f"owner-{n}", "192.0.2.1").at(NOW), f"desktop-{n}"
            )
        ).code
        for n in range(20)
    }
    wrong = [code for code in (f"{n:06d}" for n in range(200)) if code not in codes][:180]
    found: Counter[str] = Counter()
    for n, code in enumerate([*wrong, *codes]):
        caller = user(n, f"203.0.113.{n}")
        found[await guess(any_user, code, caller.at(NOW + timedelta(milliseconds=200 * n)))] += 1
    assert found == Counter(tried=180, asked=20)
    assert len(await any_user.events("pairing.bruteforce")) == 1
    async with any_user.node.database.transaction() as conn:
        states = await conn.exec_driver_sql("SELECT state, mobile_session FROM pairings")
        assert {tuple(row) for row in states} == {("pending", None)}


async def test_with_same_user_no_guess_at_anothers_code_ever_hits(site: Site) -> None:
    owner = user("owner", "192.0.2.1")
    code = (await site.node.services.pairings.create_code(owner.at(NOW), "desktop-session")).code
    outcomes = {await guess(site, code, user(n, f"203.0.113.{n}").at(NOW)) for n in range(40)}
    assert outcomes == {"tried"}
