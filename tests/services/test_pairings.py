"""Redeeming below HTTP: many at once, and what time does to a code."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import InvalidCode, PairingServerError, Unavailable
from pairing_server.request_context import RequestContext, system
from pairing_server.services import rate_limits
from pairing_server.services.codes import Codes
from pairing_server.services.pairings import Code
from pairing_server.services.rate_limits import LimitKey
from pairing_server.store import codes
from pairing_server.store import pairings as store
from tests.conftest import CONFIGURATION, StartNode
from tests.devices import Site
from tests.faults.sites import ready

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node()


@pytest.fixture
def any_user(start_node: StartNode) -> Site:
    return start_node(redeem_policy="any_user")


@pytest.fixture
def three_codes(start_node: StartNode) -> Site:
    return start_node(codes_per_user=3)


def somebody(number: int) -> RequestContext:
    """A user of a foreign issuer, at an address of his own: nothing but the code is contended."""
    address = f"10.0.{number // 256}.{number % 256}"
    return RequestContext(
        utcnow(),
        subject=f"https://id.example.com|{number}",
        address=address,
        address_key=address,
        kind="user",
    )


async def generate(
    site: Site, caller: RequestContext, session: str = "desktop-session", now: datetime = NOW
) -> Code:
    return await site.node.services.pairings.create_code(caller.at(now), session)


async def redeem(site: Site, code: str, caller: RequestContext, session: str, now: datetime = NOW) -> Code:
    return await site.node.services.pairings.redeem_code(caller.at(now), code, session)


async def test_of_two_hundred_redeemers_of_one_code_exactly_one_wins(any_user: Site) -> None:
    made = await generate(any_user, somebody(0))

    async def attempt(number: int) -> PairingServerError | int:
        try:
            await redeem(any_user, made.code, somebody(number), f"mobile-{number:03}")
        except (InvalidCode, Unavailable) as error:  # Unavailable: no free connection in time
            return error
        return number

    outcomes = await asyncio.gather(*(attempt(number) for number in range(1, 201)))
    [winner] = [outcome for outcome in outcomes if isinstance(outcome, int)]
    await ready(any_user)  # so many who wait in vain may look like an outage
    async with any_user.node.database.transaction() as conn:
        pairing = await store.by_code(conn, any_user.node.backend.codes.macs(made.code))
    assert pairing is not None
    assert (pairing.state, pairing.mobile) == (
        "redeemed",
        store.Seat(f"mobile-{winner:03}", somebody(winner).subject),
    )
    assert [event["outcome"] for event in await any_user.events("pairing.redeem")].count("success") == 1


async def test_a_code_works_until_its_last_second_and_not_after(site: Site) -> None:
    caller = somebody(0)
    made = await generate(site, caller, "desktop-1")
    assert made.expires_at == NOW + timedelta(seconds=300)
    with pytest.raises(InvalidCode):
        await redeem(site, made.code, caller, "mobile-1", made.expires_at)
    just_in_time = made.expires_at - timedelta(microseconds=1)
    assert (await redeem(site, made.code, caller, "mobile-1", just_in_time)).pairing_id == made.pairing_id


async def test_the_winners_retry_is_answered_also_after_the_code_has_expired(site: Site) -> None:
    caller = somebody(0)
    made = await generate(site, caller)
    await redeem(site, made.code, caller, "mobile-1")
    late = NOW + timedelta(hours=1)
    assert (await redeem(site, made.code, caller, "mobile-1", late)).pairing_id == made.pairing_id
    with pytest.raises(InvalidCode):
        await redeem(site, made.code, caller, "mobile-2", late)


async def test_a_retry_by_another_user_with_the_same_session_id_is_refused(any_user: Site) -> None:
    made = await generate(any_user, somebody(0))
    await redeem(any_user, made.code, somebody(1), "mobile-session")
    with pytest.raises(PairingServerError) as refused:
        await redeem(any_user, made.code, somebody(2), "mobile-session")
    assert refused.value.code == "SESSION_CONFLICT"


async def test_a_user_does_not_wait_for_failures_of_others_behind_the_address(site: Site) -> None:
    user = somebody(1)
    made = await generate(site, user)
    theirs = LimitKey("redeem_address", user.address_key, CONFIGURATION.attempt_policies.redeem_address)
    async with site.node.database.transaction() as conn:
        await rate_limits.hold(conn, [theirs], NOW)
        redeemed = await redeem(site, made.code, user, "mobile-session")
    assert redeemed.pairing_id == made.pairing_id


async def test_pending_codes_stop_counting_when_they_expire(three_codes: Site) -> None:
    caller = somebody(0)
    for number in range(3):
        await generate(three_codes, caller, f"desktop-{number}")
    with pytest.raises(PairingServerError) as refused:
        await generate(three_codes, caller, "desktop-3")
    assert refused.value.code == "RATE_LIMITED"
    assert await generate(three_codes, caller, "desktop-3", NOW + timedelta(seconds=300))


async def test_a_running_channel_stays_until_the_new_pairing_is_redeemed(site: Site) -> None:
    caller = somebody(0)
    old = await generate(site, caller)
    await redeem(site, old.code, caller, "mobile-old")
    new = await generate(site, caller)
    assert {pairing.id for pairing in await site.node.services.pairings.list_own(caller)} == {
        old.pairing_id,
        new.pairing_id,
    }
    await redeem(site, new.code, caller, "mobile-new")
    [left] = await site.node.services.pairings.list_own(caller)
    assert left.id == new.pairing_id
    [closed] = await site.events("pairing.closed")
    assert closed["reason"] == "superseded"


async def test_a_name_is_not_drawn_again_until_ten_minutes_after_its_end(site: Site) -> None:
    caller = somebody(0)
    made = await generate(site, caller)
    ended = NOW + timedelta(minutes=1)
    await site.node.services.pairings.unpair(caller.at(ended), made.pairing_id)
    only = replace(site.node.services.pairings, codes=Only(site, made.code))
    await site.node.backend.expiry.release_names(ended + timedelta(seconds=599))
    with pytest.raises(Unavailable):
        await only.create_code(caller.at(ended + timedelta(seconds=599)), "desktop-2")
    await site.node.backend.expiry.release_names(ended + timedelta(seconds=600))
    again = await only.create_code(caller.at(ended + timedelta(seconds=600)), "desktop-2")
    assert again.code == made.code


class Only(Codes):
    """Draws one code, whatever else there is."""

    def __init__(self, site: Site, code: str) -> None:
        super().__init__([key.secret for key in site.node.config.jwt_keys])
        self._code = code

    def draw(self, count: int) -> dict[bytes, tuple[str, codes.Draw]]:
        macs = self.macs(self._code)
        return {macs[0]: (self._code, codes.Draw(macs[0], tuple(macs)))}


async def test_no_code_is_at_rest_in_the_clear(site: Site) -> None:
    made = await generate(site, somebody(0))
    async with site.node.database.transaction() as conn:
        pairing = await store.by_code(conn, site.node.backend.codes.macs(made.code))
        rows = (await conn.exec_driver_sql("SELECT pairings::text FROM pairings")).scalars().all()
    assert pairing is not None
    assert pairing.id == made.pairing_id
    assert len(rows) == 1
    # A MAC is hexadecimal here: six digits may stand in it by chance, the name pair-… may not.
    columns = rows[0].strip("()").split(",")
    assert all(made.code not in column for column in columns if not column.startswith('"\\\\x'))


async def test_expiry_ends_what_is_due_and_nothing_else(site: Site) -> None:
    caller = somebody(0)
    due = await generate(site, caller, "desktop-1", NOW - timedelta(seconds=300))
    await generate(site, caller, "desktop-2")
    assert await site.node.backend.expiry.expire_pairings(system(NOW)) == 1
    assert await site.node.backend.expiry.expire_pairings(system(NOW)) == 0
    [left] = await site.node.services.pairings.list_own(caller)
    assert left.desktop.session_id == "desktop-2"
    assert due.pairing_id != left.id
