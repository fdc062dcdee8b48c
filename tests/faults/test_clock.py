"""The wall clock jumps: what lives goes on, what waits is neither lost nor immortal. Spans are measured by another clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import InvalidCode
from pairing_server.request_context import RequestContext
from pairing_server.server.scheduler import Scheduler
from tests.devices import Site
from tests.faults.sites import Talk

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


async def jobs(site: Site, jumped: timedelta, rounds: int = 2) -> None:
    """What the timer does once the wall clock has jumped that far; the other clock has not."""
    # What a socket leaves to be noted has the time before the jump, and would be written in between.
    await site.node.app.settled()
    timer = Scheduler(site.node.backend, lambda: utcnow() + jumped, asyncio.get_running_loop().time)
    for _ in range(rounds):
        # Deserted pairings are looked for first: the job that is feared most.
        for job in sorted(timer.jobs, key=lambda job: job.name != "close deserted pairings"):
            assert await timer.run(job), job.name


@pytest.mark.parametrize("jumped", [DAY, HOUR, -HOUR, -DAY], ids=str)
async def test_a_running_pair_does_not_notice_that_the_clock_jumps(site: Site, jumped: timedelta) -> None:
    talk = Talk(*await site.pair())
    await jobs(site, jumped)
    await talk.say(3)
    await jobs(site, timedelta(0))
    await talk.say(3)
    assert await site.events("pairing.closed") == []


async def test_a_member_that_went_before_the_jump_may_come_back_within_the_grace(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    await jobs(site, DAY)
    back = await site.join(account, "mobile", mobile.channel, mobile.session_id)
    await desktop.socket.pending()
    await Talk(desktop, back).say(3)


async def test_a_code_made_before_the_clock_was_set_back_works_and_runs_out_all_the_same(site: Site) -> None:
    node, now = site.node, utcnow()
    account = await site.account()
    caller = RequestContext(
        utcnow(),
        subject=account.subject,
        login_id="login",
        address="192.0.2.1",
        address_key="192.0.2.1",
        request_id=uuid4(),
        kind="user",
    )
    first, second = [
        await node.services.pairings.create_code(caller.at(now), f"desktop-{number:08d}")
        for number in range(2)
    ]
    redeemed = await node.services.pairings.redeem_code(caller.at(now - HOUR), first.code, "mobile-00000001")
    assert redeemed.channel == first.channel
    await jobs(site, -HOUR)
    with pytest.raises(InvalidCode):
        await node.services.pairings.redeem_code(
            caller.at(now + timedelta(seconds=301)), second.code, "mobile-00000002"
        )
