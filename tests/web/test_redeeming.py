"""POST /api/pair-device: who may redeem a code, and how the others are refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext
from pairing_server.security.addresses import parse_networks
from tests.conftest import StartNode
from tests.devices import Account, Answer, Site
from tests.web.clock import waits_for


@pytest.fixture
def any_user(start_node: StartNode) -> Site:
    """A site where a code admits anybody, which believes the test's X-Forwarded-For."""
    return start_node(redeem_policy="any_user", trusted_proxies=parse_networks(["127.0.0.1"]))


@pytest.fixture
def two_nodes(start_node: StartNode) -> tuple[Site, Site]:
    """Two servers of one installation: the same database and keys."""
    first = start_node()
    return first, start_node(jwt_keys=first.node.config.jwt_keys)


async def unused(site: Site, account: Account) -> str:
    """A code that was not made."""
    taken = await site.code(account, f"desktop-{account.subject}")
    return f"{(int(taken) + 1) % 10**6:06d}"


async def guess(site: Site, account: Account, code: str, **headers: str) -> Answer:
    body = {"code": code, "mobile_session_id": f"mobile-{account.subject}"}
    return await site.call("POST", "/api/pair-device", body, account.token, headers)


async def test_the_mobile_is_paired_and_told_the_channel(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    answer = await site.redeem(account, code, "mobile-session")
    assert answer.status == 200
    assert answer.body == {
        "success": True,
        "channel_id": f"pair-{code}",
        "channelId": f"pair-{code}",
        "message": "Device paired successfully",
    }


async def test_spaces_and_hyphens_in_a_code_do_not_matter(site: Site) -> None:
    account = await site.account()
    for n, form in enumerate(("{0}{1} {2}{3} {4}{5}", "{0}{1}{2}-{3}{4}{5}", " {0}{1}{2} - {3}{4}{5} ")):
        code = await site.code(account, f"desktop-{n}")
        assert (await site.redeem(account, form.format(*code), f"mobile-{n}")).status == 200, form


async def test_what_is_no_code_is_422_and_no_failure(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    wrong: list[object] = [
        *(int(code), "", "12345", "1234567", "abcdef", f"{code}x", f"{code[:5]}½"),
        *("12345\u0000", "0x1234", "+12345", "1 " * 40, None, [code], {"code": code}, 1e5, True),
    ]
    for value in wrong:
        body = {"code": value, "mobile_session_id": "mobile-session"}
        answer = await site.post("/api/pair-device", body, account.token)
        assert (answer.status, answer.error) == (422, "VALIDATION_ERROR"), value
        assert set(answer.body["details"]["fields"]) == {"code"}, value
    missing = await site.post("/api/pair-device", {}, account.token)
    assert set(missing.body["details"]["fields"]) == {"code", "mobile_session_id"}
    # Far more than ten of them, and still nobody is locked out.
    assert (await site.redeem(account, code, "mobile-session")).status == 200


async def test_unknown_expired_used_and_foreign_codes_are_one_answer(site: Site) -> None:
    account, other = await site.account(), await site.account()
    unknown = await site.redeem(account, await unused(site, account), "mobile-1")
    caller = RequestContext(
        utcnow(), subject=account.subject, address="203.0.113.7", address_key="203.0.113.7"
    )
    past = utcnow() - timedelta(seconds=300)
    made = await site.node.services.pairings.create_code(caller.at(past), "desktop-2")
    expired = await site.redeem(account, made.code, "mobile-2")
    code = await site.code(account, "desktop-3")
    assert (await site.redeem(account, code, "mobile-3")).status == 200
    used = await site.redeem(account, code, "mobile-4")
    foreign = await site.redeem(account, await site.code(other, "desktop-of-other"), "mobile-5")
    answers = [unknown, expired, used, foreign]
    assert [(answer.status, answer.error) for answer in answers] == [(404, "INVALID_CODE")] * 4
    assert [answer.body for answer in answers] == [unknown.body] * 4
    # It says what may be the matter, and what to do.
    assert all(word in unknown.body["message"] for word in ("expired", "used"))


async def test_a_foreign_try_does_not_use_a_code_up(site: Site) -> None:
    account, stranger = await site.account(), await site.account()
    code = await site.code(account, "desktop-session")
    assert (await guess(site, stranger, code)).status == 404
    assert (await site.redeem(account, code, "mobile-session")).status == 200


async def test_the_winners_retry_gets_the_same_answer(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    first = await site.redeem(account, code, "mobile-session")
    assert (await site.redeem(account, code, "mobile-session")).body == first.body
    await site.join(account, "desktop", f"pair-{code}", "desktop-session")
    mobile = await site.join(account, "mobile", f"pair-{code}", "mobile-session")
    again = await site.redeem(account, code, "mobile-session")
    assert (again.status, again.body) == (200, first.body)
    assert await mobile.socket.pending() == []
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    assert (await site.redeem(account, code, "mobile-session")).error == "INVALID_CODE"


async def test_a_connected_desktop_is_told_once_that_its_code_was_redeemed(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    desktop = await site.join(account, "desktop", f"pair-{code}", "desktop-session")
    await site.redeem(account, code, "mobile-session")
    claimed = await desktop.socket.expect("pairing_claimed")
    assert claimed["channel"] == claimed["channelId"] == f"pair-{code}"
    await site.redeem(account, code, "mobile-session")
    assert await desktop.socket.pending() == []


async def test_of_many_phones_that_try_a_code_at_once_one_wins(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    answers = await asyncio.gather(*(site.redeem(account, code, f"mobile-{n:03}") for n in range(40)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses.count(200) == 1
    # The losers count as failures of the user, who is locked out after ten.
    assert statuses[1:] == [404] * 10 + [429] * 29


async def test_with_any_user_a_code_admits_anybody_once(any_user: Site) -> None:
    account, other = await any_user.account(), await any_user.account()
    code = await any_user.code(account, "desktop-session")
    assert (await guess(any_user, other, code)).status == 200
    assert (await guess(any_user, account, code)).status == 404
    for someone in (account, other):
        [pairing] = (await any_user.get("/api/pairings", someone.token)).body["pairings"]
        assert pairing["mobile_session_id"] == f"mobile-{other.subject}"
    # Either of the two may end it.
    ended = await any_user.call("DELETE", f"/api/pairings/{pairing['id']}", token=other.token)
    assert ended.status == 200


# Lock-outs. How long they last, and what is forgotten when: tests/services/test_lockouts.py.


async def test_a_user_is_locked_out_after_ten_failures_and_a_success_does_not_reset_them(site: Site) -> None:
    account = await site.account()
    wrong = await unused(site, account)
    assert [(await guess(site, account, wrong)).status for _ in range(9)] == [404] * 9
    assert (await guess(site, account, await site.code(account, "desktop-1"))).status == 200
    began = utcnow()
    assert (await guess(site, account, wrong)).status == 404
    locked = await guess(site, account, await site.code(account, "desktop-2"))
    assert (locked.status, locked.error) == (429, "RATE_LIMITED")
    assert waits_for(locked, 3600, began)


async def test_with_same_user_a_stranger_behind_the_same_address_locks_nobody_out(site: Site) -> None:
    account, stranger = await site.account(), await site.account()
    wrong = await unused(site, stranger)
    statuses = [(await guess(site, stranger, wrong)).status for _ in range(12)]
    assert statuses == [404] * 10 + [429] * 2
    code = await site.code(account, "desktop-session")
    assert (await site.redeem(account, code, "mobile-session")).status == 200


async def test_with_any_user_five_failures_lock_an_address(any_user: Site) -> None:
    account, other = await any_user.account(), await any_user.account()
    wrong = await unused(any_user, account)
    began = utcnow()
    here, elsewhere = {"X-Forwarded-For": "203.0.113.7"}, {"X-Forwarded-For": "203.0.113.8"}
    assert [(await guess(any_user, account, wrong, **here)).status for _ in range(5)] == [404] * 5
    code = await any_user.code(account, "desktop-session")
    locked = await guess(any_user, other, code, **here)
    assert (locked.status, locked.error) == (429, "RATE_LIMITED")
    assert waits_for(locked, 300, began)
    assert (await guess(any_user, other, code, **elsewhere)).status == 200


async def test_a_lock_out_holds_on_every_node(two_nodes: tuple[Site, Site]) -> None:
    one, two = two_nodes
    account = await one.account()
    wrong = await unused(one, account)
    for n in range(10):
        assert (await guess((one, two)[n % 2], account, wrong)).status == 404
    code = await two.code(account, "desktop-session")
    assert [(await guess(site, account, code)).status for site in two_nodes] == [429, 429]
