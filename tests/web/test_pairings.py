"""Codes and pairings over HTTP: draw, list, end. Redeeming: test_redeeming.py."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.security.addresses import parse_networks
from pairing_server.security.limits import Rate
from pairing_server.services.codes import Codes
from pairing_server.store.codes import Draw
from tests.conftest import StartNode
from tests.devices import Account, Answer, Site
from tests.web.clock import waits_for


class Drawn(Codes):
    """Draws these codes, in order, instead of random ones."""

    def __init__(self, site: Site, codes: Sequence[str]) -> None:
        super().__init__([key.secret for key in site.node.config.jwt_keys])
        self.left = list(codes)
        site.use(pairings=replace(site.node.services.pairings, codes=self))

    def draw(self, count: int) -> dict[bytes, tuple[str, Draw]]:
        drawn, self.left = self.left[:count], self.left[count:]
        return {macs[0]: (code, Draw(macs[0], tuple(macs))) for code in drawn if (macs := self.macs(code))}


async def generate(site: Site, account: Account, session_id: object, **headers: str) -> Answer:
    return await site.post(
        "/api/generate-pair-code", {"desktop_session_id": session_id}, account.token, **headers
    )


async def own(site: Site, account: Account) -> list[dict[str, Any]]:
    answer = await site.get("/api/pairings", account.token)
    assert answer.status == 200
    pairings: list[dict[str, Any]] = answer.body["pairings"]
    return pairings


# Codes


async def test_a_code_comes_with_all_that_a_desktop_needs(site: Site) -> None:
    before = utcnow()
    answer = await generate(site, await site.account(), "desktop-session")
    assert answer.status == 200
    code = answer.body["code"]
    assert re.fullmatch("[0-9]{6}", code)
    assert answer.body == {
        "code": code,
        "expires_at": answer.body["expires_at"],
        "expires_in": 300,
        "channel_id": f"pair-{code}",
        "channelId": f"pair-{code}",
        "pairing_uri": f"http://pairing.test/phone#code={code}",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", answer.body["expires_at"])
    expires_at = datetime.fromisoformat(answer.body["expires_at"])
    assert before + timedelta(seconds=300) <= expires_at <= utcnow() + timedelta(seconds=300)


async def test_leading_zeros_are_kept(site: Site) -> None:
    account = await site.account()
    Drawn(site, ["000042"])
    answer = await generate(site, account, "desktop-session")
    assert (answer.body["code"], answer.body["channel_id"]) == ("000042", "pair-000042")
    paired = await site.redeem(account, "000042", "mobile-session")
    assert (paired.status, paired.body["channel_id"]) == (200, "pair-000042")


async def test_a_drawn_code_that_is_taken_is_passed_over(site: Site) -> None:
    account = await site.account()
    codes = Drawn(site, ["111111"])
    assert (await generate(site, account, "desktop-1")).body["code"] == "111111"
    codes.left = ["111111", "222222"]
    assert (await generate(site, account, "desktop-2")).body["code"] == "222222"
    # The first desktop's code still is the first's.
    await site.redeem(account, "111111", "mobile-1")
    [_, first] = await own(site, account)
    assert (first["desktop_session_id"], first["mobile_session_id"]) == ("desktop-1", "mobile-1")


async def test_when_no_drawn_code_is_free_the_server_is_unavailable(site: Site) -> None:
    account = await site.account()
    codes = Drawn(site, ["111111"])
    await generate(site, account, "desktop-1")
    codes.left = ["111111"]
    answer = await generate(site, account, "desktop-2")
    assert (answer.status, answer.error) == (503, "UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_session_id_is_8_to_128_plain_characters(site: Site) -> None:
    account = await site.account()
    for good in ("a" * 8, "a" * 128, "Az09._:-"):
        assert (await generate(site, account, good)).status == 200, good
    for bad in (
        "a" * 7,
        "a" * 129,
        "desktop session",
        "desktop-٣",
        "desktop-1\n",
        "desktop\u0000-1",
        12345678,
        None,
    ):
        answer = await generate(site, account, bad)
        assert (answer.status, answer.error) == (422, "VALIDATION_ERROR"), bad
        assert set(answer.body["details"]["fields"]) == {"desktop_session_id"}
    missing = await site.post("/api/generate-pair-code", {}, account.token)
    assert set(missing.body["details"]["fields"]) == {"desktop_session_id"}


async def test_another_users_session_id_is_a_conflict(site: Site) -> None:
    ada, grace = await site.account(), await site.account()
    code = await site.code(ada, "adas-desktop")
    answer = await generate(site, grace, "adas-desktop")
    assert (answer.status, answer.error) == (409, "SESSION_CONFLICT")
    code_of_grace = await site.code(grace, "graces-desktop")
    conflict = await site.redeem(grace, code_of_grace, "adas-desktop")
    assert (conflict.status, conflict.error) == (409, "SESSION_CONFLICT")
    # Neither code was touched by it.
    assert (await site.redeem(ada, code, "adas-mobile")).status == 200
    assert (await site.redeem(grace, code_of_grace, "graces-mobile")).status == 200


# Limits of codes


@pytest.fixture
def three_codes(start_node: StartNode) -> Site:
    return start_node(codes_per_user=3)


@pytest.fixture
def five_in_five_minutes(start_node: StartNode) -> Site:
    return start_node(code_rate=Rate(5, 300))


@pytest.fixture
def four_an_address(start_node: StartNode) -> Site:
    return start_node(code_rate_address=Rate(4, 300), trusted_proxies=parse_networks(["127.0.0.1"]))


@pytest.fixture
def two_live(start_node: StartNode) -> Site:
    return start_node(max_live_codes=2)


async def test_three_codes_of_a_user_wait_and_a_fourth_does_not(three_codes: Site) -> None:
    ada, grace = await three_codes.account(), await three_codes.account()
    codes = [await three_codes.code(ada, f"desktop-{n}") for n in range(3)]
    refused = await generate(three_codes, ada, "desktop-3")
    assert (refused.status, refused.error) == (429, "RATE_LIMITED")
    assert int(refused.headers["Retry-After"]) >= 1
    # A desktop that replaces its own code, another user, and whoever has used one up, may.
    assert (await generate(three_codes, ada, "desktop-2")).status == 200
    assert (await generate(three_codes, grace, "desktop-of-grace")).status == 200
    assert (await three_codes.redeem(ada, codes[0], "mobile-session")).status == 200
    assert (await generate(three_codes, ada, "desktop-3")).status == 200


async def test_codes_asked_for_at_once_are_all_counted(three_codes: Site) -> None:
    account = await three_codes.account()
    answers = await asyncio.gather(*(generate(three_codes, account, f"desktop-{n}") for n in range(8)))
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 5


async def test_a_user_makes_five_codes_in_five_minutes(five_in_five_minutes: Site) -> None:
    site = five_in_five_minutes
    ada, grace = await site.account(), await site.account()
    began = utcnow()
    assert [(await generate(site, ada, "desktop-session")).status for _ in range(6)] == [200] * 5 + [429]
    refused = await generate(site, ada, "desktop-session")
    assert waits_for(refused, 300, began)
    assert (await generate(site, grace, "desktop-of-grace")).status == 200


async def test_an_address_makes_only_so_many_codes(four_an_address: Site) -> None:
    site, here = four_an_address, {"X-Forwarded-For": "2001:db8::1"}
    began = utcnow()
    for _ in range(4):
        assert (await generate(site, await site.account(), f"desktop-{uuid4()}", **here)).status == 200
    # Another address of the same /64 is the same address.
    for address, status in (("2001:db8::2", 429), ("2001:db8:0:1::1", 200)):
        headers = {"X-Forwarded-For": address}
        answer = await generate(site, await site.account(), f"desktop-{uuid4()}", **headers)
        assert answer.status == status, address
    refused = await generate(site, await site.account(), "desktop-9", **here)
    assert waits_for(refused, 300, began)


async def test_a_desktop_that_asks_again_supersedes_its_pending_code(site: Site) -> None:
    account = await site.account()
    first, other = await site.code(account, "desktop-1"), await site.code(account, "desktop-2")
    second = await site.code(account, "desktop-1")
    refused = await site.redeem(account, first, "mobile-1")
    assert (refused.status, refused.error) == (404, "INVALID_CODE")
    assert (await site.redeem(account, second, "mobile-1")).status == 200
    assert (await site.redeem(account, other, "mobile-2")).status == 200


async def test_a_waiting_desktop_is_told_that_its_code_was_superseded(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    desktop = await site.join(account, "desktop", f"pair-{code}", "desktop-session")
    await site.code(account, "desktop-session")
    error = await desktop.socket.error()
    assert (error["code"], error["details"]["reason"]) == ("INVALID_CHANNEL", "superseded")


async def test_when_too_many_codes_live_there_are_no_new_ones(two_live: Site) -> None:
    account = await two_live.account()
    await two_live.code(account, "desktop-1")
    await two_live.code(account, "desktop-1")  # takes the first one's place
    await two_live.code(account, "desktop-2")
    refused = await generate(two_live, account, "desktop-3")
    assert (refused.status, refused.error) == (503, "UNAVAILABLE")
    assert int(refused.headers["Retry-After"]) >= 1
    [pairing, _] = await own(two_live, account)
    await two_live.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    await two_live.node.backend.code_limits.count_live()
    assert (await generate(two_live, account, "desktop-3")).status == 200


# One's own pairings


async def test_a_user_sees_the_own_live_pairings_newest_first(site: Site) -> None:
    ada, grace = await site.account(), await site.account()
    await site.code(ada, "desktop-1")
    await site.redeem(ada, await site.code(ada, "desktop-2"), "mobile-2")
    await site.code(grace, "desktop-of-grace")
    redeemed, pending = await own(site, ada)
    assert set(pending) == {
        *("id", "state", "desktop_session_id", "mobile_session_id"),
        *("created_at", "expires_at", "redeemed_at", "activated_at"),
    }
    assert (pending["state"], pending["desktop_session_id"]) == ("pending", "desktop-1")
    assert (pending["mobile_session_id"], pending["redeemed_at"]) == (None, None)
    assert (redeemed["state"], redeemed["mobile_session_id"]) == ("redeemed", "mobile-2")
    assert all(redeemed[name].endswith("Z") for name in ("created_at", "expires_at", "redeemed_at"))
    assert [pairing["desktop_session_id"] for pairing in await own(site, grace)] == ["desktop-of-grace"]


async def test_pairings_are_shown_to_nobody_without_a_token(site: Site) -> None:
    for method, path in (("GET", "/api/pairings"), ("DELETE", f"/api/pairings/{uuid4()}")):
        answer = await site.call(method, path)
        assert (answer.status, answer.error) == (401, "UNAUTHORIZED")


async def test_unpairing_closes_the_channel_for_both(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    [pairing] = await own(site, account)
    answer = await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    assert (answer.status, answer.body) == (200, {"success": True, "id": pairing["id"]})
    for device, gone, peer in ((desktop, "mobile", mobile), (mobile, "desktop", desktop)):
        left = await device.socket.expect(f"{gone}_disconnected")
        assert (left["force_disconnect"], left["client_id"]) == (True, peer.session_id)
        assert (await device.socket.expect("channel_closed"))["channel"] == device.channel
        assert await device.socket.closed() == 4410
    assert await own(site, account) == []
    back = await site.connect(account, "mobile")
    back.send(
        {
            "type": "join_channel",
            "channel": mobile.channel,
            "device_type": "mobile",
            "session_id": mobile.session_id,
        }
    )
    assert (await back.error())["code"] == "INVALID_CHANNEL"


async def test_a_pending_code_that_is_unpaired_works_no_more(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    [pairing] = await own(site, account)
    assert (await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)).status == 200
    assert (await site.redeem(account, code, "mobile-session")).error == "INVALID_CODE"


async def test_only_an_own_pairing_can_be_unpaired_and_again_with_the_same_answer(site: Site) -> None:
    ada, grace = await site.account(), await site.account()
    await site.code(ada, "desktop-session")
    [pairing] = await own(site, ada)
    path = f"/api/pairings/{pairing['id']}"
    foreign = await site.call("DELETE", path, token=grace.token)
    unknown = await site.call("DELETE", f"/api/pairings/{uuid4()}", token=grace.token)
    assert (foreign.status, foreign.error) == (404, "NOT_FOUND")
    assert foreign.body == unknown.body
    assert [p["id"] for p in await own(site, ada)] == [pairing["id"]]
    first = await site.call("DELETE", path, token=ada.token)
    assert first.status == 200
    again = await site.call("DELETE", path, token=ada.token)
    assert (again.status, again.body) == (200, first.body)
    assert (await site.call("DELETE", path, token=grace.token)).status == 404
    assert len(await site.events("pairing.closed")) == 1


async def test_a_pairing_that_has_ended_by_itself_cannot_be_unpaired(site: Site) -> None:
    account = await site.account()
    await site.code(account, "desktop-session")
    [pairing] = await own(site, account)
    await site.node.backend.expiry.expire_pairings(system(utcnow() + timedelta(seconds=300)))
    assert (await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)).status == 404


async def test_an_id_that_is_none_is_404(site: Site) -> None:
    account = await site.account()
    for bad in ("1", "pair-123456", "..", str(uuid4()) + "0", "%00"):
        answer = await site.call("DELETE", f"/api/pairings/{bad}", token=account.token)
        assert (answer.status, answer.error) == (404, "NOT_FOUND"), bad
