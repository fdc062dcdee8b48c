"""An attack shows: too many wrong codes everywhere together, and codes need the desktop's word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.client import PairingClient, ServerError
from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.errors import InvalidCode
from pairing_server.request_context import RequestContext, system
from pairing_server.security.limits import Rate
from tests.conftest import StartNode
from tests.devices import Account, Answer, Site, Socket

FEW = Rate(4, 60)


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node(redeem_policy="any_user", redeem_alarm=FEW)


@pytest.fixture
def two(start_node: StartNode, site: Site) -> tuple[Site, Site]:
    """Two of them."""
    return site, start_node(redeem_policy="any_user", redeem_alarm=FEW)


async def guess(site: Site, number: int) -> None:
    """A wrong code, each from another user and address: no limit of theirs is reached."""
    caller = RequestContext(
        utcnow(),
        subject=f"https://id.example|{number}",
        address=f"203.0.113.{number}",
        address_key=f"203.0.113.{number}",
        kind="user",
    )
    with pytest.raises(InvalidCode):
        await site.node.services.pairings.redeem_code(caller.at(utcnow()), "999999", f"mobile-of-{number}")


async def attack(site: Site, count: int = FEW.count) -> None:
    for number in range(count):
        await guess(site, number)


class Shown:
    """A desktop with a code on its screen, connected and joined."""

    def __init__(self, site: Site, owner: Account, code: str, socket: Socket) -> None:
        self.site, self.owner, self.code, self.socket = site, owner, code, socket
        self.channel = f"pair-{code}"

    def answer(self, type_: str) -> None:
        self.socket.send({"type": type_, "channel": self.channel})


async def show(site: Site, *, joined: bool = True) -> Shown:
    owner = await site.account()
    code = await site.code(owner, "desktop-session")
    while code == "999999":
        code = await site.code(owner, "desktop-session")
    if joined:
        desktop = await site.join(owner, "desktop", f"pair-{code}", "desktop-session")
        return Shown(site, owner, code, desktop.socket)
    socket = await site.connect(owner, "desktop")
    socket.send({"type": "identify", "device_type": "desktop", "session_id": "desktop-session"})
    await socket.expect("identified")
    return Shown(site, owner, code, socket)


async def redeem(site: Site, account: Account, code: str, session: str = "mobile-session") -> Answer:
    body = {"code": code, "mobile_session_id": session}
    return await site.post("/api/pair-device", body, account.token, **{"User-Agent": "Ada's phone"})


def pending(answer: Answer) -> bool:
    return (answer.status, answer.error, int(answer.headers["Retry-After"]) <= 3) == (
        409,
        "CONFIRMATION_NEEDED",
        True,
    )


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "identified"])
async def test_while_the_alarm_is_on_a_stranger_waits_for_the_desktops_word(site: Site, joined: bool) -> None:
    shown, phone = await show(site, joined=joined), await site.account()
    await attack(site)
    answer = await redeem(site, phone, shown.code)
    assert pending(answer)
    assert 0 < answer.body["details"]["expires_in"] <= 300
    asked = await shown.socket.expect("pairing_request")
    assert asked["channel"] == asked["channelId"] == shown.channel
    assert (asked["device"], asked["address"]) == ("Ada's phone", "127.0.0.1")
    assert pending(await redeem(site, phone, shown.code))
    assert await shown.socket.pending() == []  # told once
    shown.answer("pairing_confirm")
    assert await shown.socket.pending() == []
    assert (await redeem(site, phone, shown.code)).status == 200
    await shown.socket.expect("pairing_claimed")
    [confirmed] = await site.events("pairing.confirmed")
    assert (confirmed["actor"], confirmed["by_session"]) == (shown.owner.subject, "desktop-session")


async def test_a_rejected_code_is_over_and_the_desktop_may_ask_for_another(site: Site) -> None:
    shown, phone = await show(site), await site.account()
    await attack(site)
    assert pending(await redeem(site, phone, shown.code))
    await shown.socket.expect("pairing_request")
    shown.answer("pairing_reject")
    error = await shown.socket.error()
    assert (error["code"], error["details"]["reason"]) == ("INVALID_CHANNEL", "rejected")
    assert (await redeem(site, phone, shown.code)).error == "INVALID_CODE"
    assert await site.code(shown.owner, "desktop-session") != shown.code
    assert len(await site.events("pairing.rejected")) == 1


@pytest.mark.parametrize("answer", ["pairing_confirm", "pairing_reject"])
async def test_the_desktops_word_may_be_repeated_and_is_recorded_once(site: Site, answer: str) -> None:
    """Its first answer may have been lost, and the phone may have its seat by then."""
    shown, phone = await show(site, joined=False), await site.account()
    await attack(site)
    assert pending(await redeem(site, phone, shown.code))
    await shown.socket.expect("pairing_request")
    for _ in range(2):
        shown.answer(answer)
        assert await shown.socket.pending() == []
    if answer == "pairing_confirm":
        assert (await redeem(site, phone, shown.code)).status == 200
        await shown.socket.expect("pairing_claimed")
    shown.answer(answer)
    assert await shown.socket.pending() == []
    word = "pairing.confirmed" if answer == "pairing_confirm" else "pairing.rejected"
    assert len(await site.events(word)) == 1
    # The other word is refused.
    shown.answer("pairing_reject" if answer == "pairing_confirm" else "pairing_confirm")
    assert (await shown.socket.error())["code"] == "INVALID_CHANNEL"


async def test_ones_own_desktop_needs_no_word(site: Site) -> None:
    shown = await show(site)
    await attack(site)
    assert (await redeem(site, shown.owner, shown.code)).status == 200


async def test_only_the_phone_that_asked_first_is_confirmed(site: Site) -> None:
    shown, first, second = await show(site), await site.account(), await site.account()
    await attack(site)
    assert pending(await redeem(site, first, shown.code))
    assert (await redeem(site, second, shown.code, "mobile-of-another")).error == "INVALID_CODE"
    shown.answer("pairing_confirm")
    await shown.socket.pending()
    assert (await redeem(site, second, shown.code, "mobile-of-another")).error == "INVALID_CODE"
    assert (await redeem(site, first, shown.code)).status == 200


async def test_nobody_but_the_desktop_of_the_code_answers(site: Site) -> None:
    shown, phone = await show(site), await site.account()
    await attack(site)
    assert pending(await redeem(site, phone, shown.code))
    other = await site.connect(phone, "desktop")
    for message in ("pairing_confirm", "pairing_reject"):
        other.send({"type": message, "channel": shown.channel})
        assert (await other.error())["code"] == "NOT_IN_CHANNEL"
    other.send({"type": "identify", "device_type": "desktop", "session_id": "desktop-of-another"})
    await other.expect("identified")
    for message in ("pairing_confirm", "pairing_reject"):
        other.send({"type": message, "channel": shown.channel})
        assert (await other.error())["code"] == "INVALID_CHANNEL"
    other.send({"type": "pairing_confirm"})
    assert (await other.error())["code"] == "VALIDATION_ERROR"
    mobile = await site.connect(phone, "mobile")
    mobile.send({"type": "pairing_confirm", "channel": shown.channel})
    assert (await mobile.error())["code"] == "FORBIDDEN"
    assert pending(await redeem(site, phone, shown.code))


async def test_a_hit_that_is_not_confirmed_counts_as_a_guess_once(site: Site) -> None:
    shown, phone = await show(site), await site.account()
    await attack(site)
    for _ in range(15):
        assert pending(await redeem(site, phone, shown.code))
    reasons = [e["reason"] for e in await site.events("pairing.redeem") if e["actor"] == phone.subject]
    assert reasons == ["unconfirmed"]


async def test_without_an_alarm_nobody_is_asked(site: Site) -> None:
    shown, phone = await show(site), await site.account()
    await attack(site, FEW.count - 1)
    assert (await redeem(site, phone, shown.code)).status == 200
    assert (await shown.socket.expect("pairing_claimed"))["channel"] == shown.channel


async def test_the_alarm_is_one_event_of_severity_2_and_ends_ten_minutes_after_the_last_attack(
    site: Site,
) -> None:
    node, now = site.node, utcnow()
    await attack(site, FEW.count * 3)
    await node.backend.guard.settle(system(now))
    assert node.backend.guard.active(now + timedelta(seconds=599))
    assert not node.backend.guard.active(utcnow() + timedelta(seconds=601))
    [event] = await site.events("pairing.bruteforce")
    assert (event["scope"], event["failures"], event["window_s"], event["measure"]) == (
        "global",
        4,
        60,
        "confirmation",
    )
    async with site.node.database.transaction() as conn:
        severity = await conn.exec_driver_sql(
            "SELECT severity FROM audit_events WHERE event = 'pairing.bruteforce'"
        )
        assert severity.scalars().all() == [2]


async def test_failures_on_several_servers_count_together_and_the_alarm_holds_on_all(
    two: tuple[Site, Site], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = two
    shown, phone = await show(there), await here.account()
    await guess(here, 1)
    await guess(here, 2)
    await guess(there, 3)
    await guess(there, 4)
    for site in (here, there):
        assert not site.node.backend.guard.active(utcnow())
    for site in (here, there, here):
        await site.node.backend.guard.settle(system(utcnow()))
    for site in (here, there):
        assert site.node.backend.guard.active(utcnow())
    assert len(await here.events("pairing.bruteforce")) == 1
    assert len([r for r in caplog.records if r.getMessage().startswith("brute force guard active")]) == 2
    # The desktop is on the other server: it is told with that one's next look.
    assert pending(await redeem(here, phone, shown.code))
    assert await there.node.services.confirmations.send({}, utcnow()) == 1
    await shown.socket.expect("pairing_request")
    shown.answer("pairing_confirm")
    await shown.socket.pending()
    assert (await redeem(here, phone, shown.code)).status == 200


async def test_slow_guessing_sets_nothing_off(site: Site) -> None:
    node, now = site.node, utcnow()
    for number in range(12):
        node.backend.guard.record_failure(now + number * timedelta(seconds=21))
        await node.backend.guard.settle(system(now + number * timedelta(seconds=21)))
    assert not node.backend.guard.active(now + timedelta(seconds=12 * 21))


async def test_an_admin_sees_the_alarm_and_lifts_it(site: Site) -> None:
    node, admin = site.node, RequestContext(utcnow(), kind="admin")
    await attack(site)
    [one] = [x for x in await node.services.lockouts.list_all(admin.at(utcnow())) if x.kind == "redeem_alarm"]
    assert one.key == "all"
    await node.services.lockouts.lift(admin.at(utcnow()), "redeem_alarm", "all")
    await node.backend.guard.settle(system(utcnow()))
    assert not node.backend.guard.active(utcnow())


async def test_a_desktop_that_connects_again_is_told_again(site: Site) -> None:
    shown, phone = await show(site), await site.account()
    await attack(site)
    assert pending(await redeem(site, phone, shown.code))
    await shown.socket.expect("pairing_request")
    again = await site.join(shown.owner, "desktop", shown.channel, "desktop-session")
    await site.node.services.confirmations.send({}, utcnow())
    messages: list[dict[str, Any]] = await again.socket.pending()
    assert [message["type"] for message in messages] == ["pairing_request"]


class Late:
    """A database whose transactions end only when they may."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.asked, self.may_end = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._database.transaction() as conn:
            yield conn
            self.asked.set()
            await self.may_end.wait()


async def test_a_desktop_is_told_once_also_while_the_timer_looks(site: Site) -> None:
    shown, phone = await show(site), await site.account()
    await attack(site)
    late: Any = Late(site.node.database)
    timer = asyncio.ensure_future(replace(site.node.services.confirmations, database=late).send({}, utcnow()))
    await late.asked.wait()
    assert pending(await redeem(site, phone, shown.code))
    await shown.socket.expect("pairing_request")
    # It has asked before there was a request, and has the answer only now.
    late.may_end.set()
    assert await timer == 0
    assert await site.node.services.confirmations.send({}, utcnow()) == 0
    assert await shown.socket.pending() == []


async def test_the_python_client_waits_for_the_desktops_word(site: Site) -> None:
    owner, stranger = await site.account(), await site.account()
    await attack(site)
    with (
        PairingClient(site.url, "desktop", access_token=owner.token) as desktop,
        PairingClient(site.url, "mobile", access_token=stranger.token) as phone,
    ):
        code = await desktop.generate_code()
        connection = await desktop.connect()
        await connection.join(code.channel)
        with pytest.raises(ServerError, match="CONFIRMATION_NEEDED") as refused:
            await phone.redeem(code.code)
        assert refused.value.retry_after is not None
        asked = await connection.expect("pairing_request")
        await connection.answer_request(asked["channel"], wanted=True)
        assert await phone.redeem(code.code, confirmed_within=10) == code.channel
        await connection.close()
