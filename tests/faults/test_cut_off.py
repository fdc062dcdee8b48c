"""Requests that are cut off in the middle, and COMMITs whose answer is lost: nothing leaks, and a code is redeemed once."""

from __future__ import annotations

import asyncio
import random
from uuid import uuid4

import pytest
from sqlalchemy import select

from harness.fault_proxy import FaultProxy
from pairing_server.clock import utcnow
from pairing_server.db.database import Database, PoolLimits
from pairing_server.errors import Unavailable
from pairing_server.request_context import RequestContext
from pairing_server.store.pairings import COLUMNS
from tests.devices import Account, Answer, Site
from tests.faults.sites import ready, sessions


async def quiet(site: Site, database_url: str) -> None:
    """Nothing is under way, no connection is out, and none is left in a transaction."""
    await site.node.app.settled()
    pool = site.node.database.engine.pool
    assert pool.checkedout() == 0  # type: ignore[attr-defined]
    # PostgreSQL notices a moment later that a connection has been cut.
    while True:
        open_ones = await sessions(database_url)
        in_use = {session["state"] for session in open_ones} - {"idle"}
        if len(open_ones) <= pool.size() + 2 and not in_use:  # type: ignore[attr-defined]
            return


async def test_five_hundred_requests_cut_off_in_the_middle_leave_nothing_behind(
    far: Site, proxy: FaultProxy, database_url: str
) -> None:
    node = far.node
    accounts = [await far.account() for _ in range(20)]
    # Whatever the machine, making a code takes 20 ms so, and a list 80 ms, as it takes four statements.
    proxy.delay(0.02)
    drawn = random.Random(50)

    async def ask(number: int) -> None:
        account = accounts[number % len(accounts)]
        caller = RequestContext(
            utcnow(),
            subject=account.subject,
            login_id="login",
            address="192.0.2.1",
            address_key="192.0.2.1",
            request_id=uuid4(),
            kind="user",
        )
        if number % 3:
            await node.services.pairings.create_code(caller.at(utcnow()), f"desktop-{number:08d}")
        else:
            await node.services.pairings.list_own(caller)

    async def cut(number: int) -> str:
        task = asyncio.ensure_future(ask(number))
        await asyncio.wait([task], timeout=drawn.uniform(0, 0.05 if number % 3 else 0.1))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cut"
        except Unavailable:
            return "told"
        return "done"

    ends = [
        end
        for start in range(0, 500, 25)
        for end in await asyncio.gather(*map(cut, range(start, start + 25)))
    ]
    assert ends.count("cut") > 250, ends
    proxy.heal()
    await ready(far)
    assert (
        await far.post("/api/generate-pair-code", {"desktop_session_id": "desktop-1"}, accounts[0].token)
    ).status == 200
    await quiet(far, database_url)


async def test_who_has_used_up_his_time_does_not_wait_to_say_goodbye(
    far_url: str, proxy: FaultProxy, database_url: str
) -> None:
    """A server far away would take another two seconds for it, and a connection more for what it shall break off."""
    database = Database(far_url, limits=PoolLimits(statement_timeout=2))
    try:
        with pytest.raises(Unavailable):
            async with database.direct() as direct:
                pid, accepted = direct.driver.get_server_pid(), proxy.accepted
                while True:
                    await direct.driver.execute("SELECT pg_sleep(0.2)")
        # PostgreSQL notices by itself, and undoes what was begun.
        while pid in [session["pid"] for session in await sessions(database_url)]:
            pass
        assert proxy.accepted == accepted
    finally:
        await database.close()


async def try_until_told(site: Site, account: Account, code: str, session_id: str) -> Answer:
    """As a phone does: again and again while the server says that it cannot answer now."""
    while (answer := await site.redeem(account, code, session_id)).status == 503:
        pass
    return answer


async def test_of_redemptions_cut_in_their_commit_one_wins_and_its_retry_gets_the_same_answer(
    far: Site, proxy: FaultProxy, database_url: str
) -> None:
    drawn = random.Random(2)
    cuts: list[str] = []
    unheard = 0

    def cut(data: bytes) -> str | None:
        nonlocal unheard
        if b"COMMIT" not in data:
            return None
        how = drawn.choice(["before", "after", None, None])
        if how == "after":
            unheard += 1
            # Each loser counts twice whose answer is lost, and the tenth wrong code locks the winner out, too.
            if unheard > 6:
                return None
        if how is not None:
            cuts.append(how)
        return how

    for number in range(8):
        unheard = 0
        account = await far.account()  # for the same reason
        code = await far.code(account, f"desktop-{number:08d}")
        proxy.cut_when(cut)
        phones = [f"mobile-{number:04d}-{phone}" for phone in range(3)]
        answers = dict(
            zip(
                phones,
                await asyncio.gather(*(try_until_told(far, account, code, phone) for phone in phones)),
                strict=True,
            )
        )
        proxy.heal()
        await ready(far)
        assert sorted(answer.status for answer in answers.values()) == [200, 404, 404]
        [winner] = [phone for phone, answer in answers.items() if answer.status == 200]
        assert (await far.redeem(account, code, winner)).body == answers[winner].body
        async with far.node.database.transaction() as conn:
            row = (await conn.execute(select(*COLUMNS).order_by(COLUMNS[6].desc()).limit(1))).one()
        assert (row.state, row.mobile_session) == ("redeemed", winner)
    assert {"before", "after"} <= set(cuts)
    await quiet(far, database_url)
