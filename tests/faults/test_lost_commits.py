"""The answer to a COMMIT is lost: what was committed reaches the devices all the same, and a retry gets the same answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.fault_proxy import FaultProxy
from tests.devices import Site
from tests.faults.sites import ready

POLL = "poll pairing changes"


def lose_answer_to_commit(proxy: FaultProxy) -> Callable[[], bool]:
    """Lose the answer to the next COMMIT, once. Whether that has been done."""
    lost = False

    def cut(data: bytes) -> str | None:
        nonlocal lost
        if lost or b"COMMIT" not in data:
            return None
        lost = True
        return "after"

    proxy.cut_when(cut)
    return lambda: lost


async def test_an_unpairing_whose_commit_was_not_answered_closes_the_channel(
    far: Site, proxy: FaultProxy
) -> None:
    account = await far.account()
    desktop, mobile = await far.pair(account)
    [pairing] = (await far.get("/api/pairings", account.token)).body["pairings"]
    lost = lose_answer_to_commit(proxy)
    path = f"/api/pairings/{pairing['id']}"
    assert (await far.call("DELETE", path, token=account.token)).status == 503
    assert lost()
    await far.run(POLL)
    for device, gone in ((desktop, "mobile"), (mobile, "desktop")):
        assert (await device.socket.expect(f"{gone}_disconnected"))["force_disconnect"] is True
        assert (await device.socket.expect("channel_closed"))["reason"] == "unpaired"
        assert await device.socket.closed() == 4410
    again = await far.call("DELETE", path, token=account.token)
    assert (again.status, again.body) == (200, {"success": True, "id": pairing["id"]})
    assert len(await far.events("pairing.closed")) == 1


async def test_the_retry_of_an_unpairing_closes_the_channel_without_a_poll(
    far: Site, proxy: FaultProxy
) -> None:
    account = await far.account()
    desktop, _ = await far.pair(account)
    [pairing] = (await far.get("/api/pairings", account.token)).body["pairings"]
    lose_answer_to_commit(proxy)
    path = f"/api/pairings/{pairing['id']}"
    assert (await far.call("DELETE", path, token=account.token)).status == 503
    assert (await far.call("DELETE", path, token=account.token)).status == 200
    assert await desktop.socket.closed() == 4410


async def test_a_member_that_unpairs_and_gets_no_answer_has_unpaired(far: Site, proxy: FaultProxy) -> None:
    desktop, mobile = await far.pair()
    lost = lose_answer_to_commit(proxy)
    mobile.socket.send({"type": "unpair", "channel": mobile.channel})
    assert (await mobile.socket.error())["code"] == "UNAVAILABLE"
    assert lost()
    # Its retry closes the channel at once.
    mobile.socket.send({"type": "unpair", "channel": mobile.channel})
    assert (await desktop.socket.expect("mobile_disconnected"))["force_disconnect"] is True
    for device in (desktop, mobile):
        assert await device.socket.closed() == 4410
    assert len(await far.events("pairing.closed")) == 1


@pytest.mark.parametrize("joined", [True, False])
async def test_a_redemption_whose_commit_was_not_answered_is_announced(
    far: Site, proxy: FaultProxy, joined: bool
) -> None:
    """Also where the desktop has not joined the new channel, and the phone does not try again."""
    account = await far.account()
    desktop, old_mobile = await far.pair(account)
    code = await far.code(account, desktop.session_id)
    waits = desktop
    if joined:
        waits = await far.join(account, "desktop", f"pair-{code}", desktop.session_id)
    lost = lose_answer_to_commit(proxy)
    assert (await far.redeem(account, code, "mobile-new")).status == 503
    assert lost()
    await far.run(POLL)
    assert (await waits.socket.expect("pairing_claimed"))["channel"] == f"pair-{code}"
    assert await old_mobile.socket.closed() == 4410
    # The phone tries again: the same answer, and the desktop hears nothing twice.
    answer = await far.redeem(account, code, "mobile-new")
    assert (answer.status, answer.body["channel_id"]) == (200, f"pair-{code}")
    await far.run(POLL)
    assert "pairing_claimed" not in [message["type"] for message in await waits.socket.pending()]
    await ready(far)


async def test_the_retry_of_a_redemption_is_announced_without_a_poll(far: Site, proxy: FaultProxy) -> None:
    account = await far.account()
    code = await far.code(account, "desktop-1")
    desktop = await far.join(account, "desktop", f"pair-{code}", "desktop-1")
    lose_answer_to_commit(proxy)
    assert (await far.redeem(account, code, "mobile-1")).status == 503
    assert (await far.redeem(account, code, "mobile-1")).status == 200
    await desktop.socket.expect("pairing_claimed")


async def test_polling_survives_the_absence_of_the_database(far: Site, proxy: FaultProxy) -> None:
    account = await far.account()
    desktop, _ = await far.pair(account)
    await far.run(POLL)
    proxy.reset()
    [job] = [each for each in far.node.scheduler.jobs if each.name == POLL]
    while far.node.database.breaker.outage is None:
        assert not await far.node.scheduler.run(job)
    proxy.heal()
    await ready(far)
    [pairing] = (await far.get("/api/pairings", account.token)).body["pairings"]
    lose_answer_to_commit(proxy)
    await far.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    await far.run(POLL)
    assert await desktop.socket.closed() == 4410
