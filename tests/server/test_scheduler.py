"""The timer: each job on its own, again and again, whatever happens to the others."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

from pairing_server.clock import utcnow
from pairing_server.db.circuit_breaker import Outage
from pairing_server.db.tables import pairings
from pairing_server.server.scheduler import Job, Scheduler
from pairing_server.store import users
from tests.conftest import StartNode
from tests.devices import Site


def scheduler(site: Site, *jobs: Job, later: float = 0) -> Scheduler:
    """A timer of the test's own, `later` seconds ahead; with these jobs, if any, instead of the real ones."""
    loop = asyncio.get_running_loop()
    made = Scheduler(
        site.node.backend, lambda: utcnow() + timedelta(seconds=later), lambda: loop.time() + later
    )
    if jobs:
        made.jobs = jobs  # type: ignore[assignment]
    return made


class Work:
    """A job that counts its runs; `done` is set when there were `enough`."""

    def __init__(self, enough: int = 3, *, fails: bool = False) -> None:
        self.runs = 0
        self.done = asyncio.Event()
        self._enough = enough
        self._fails = fails

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs >= self._enough:
            self.done.set()
        if self._fails:
            raise RuntimeError(f"broken {self.runs}")


async def test_a_job_that_fails_is_logged_and_stops_neither_the_others_nor_itself(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = Work(fails=True), Work()
    timer = scheduler(site, Job("broken", 0.001, broken), Job("fine", 0.001, fine))
    timer.start()
    try:
        await broken.done.wait()
        await fine.done.wait()
    finally:
        timer.stop()
    told = [
        record
        for record in caplog.records
        if (record.getMessage(), vars(record).get("job")) == ("job failed", "broken")
    ]
    assert len(told) >= 3
    assert all(record.levelno == logging.ERROR and record.exc_info for record in told)


async def test_a_job_that_takes_long_is_not_begun_again_and_delays_no_other(site: Site) -> None:
    go = asyncio.Event()
    begun = 0

    async def slow() -> None:
        nonlocal begun
        begun += 1
        await go.wait()

    fine = Work(enough=5)
    timer = scheduler(site, Job("slow", 0.001, slow), Job("fine", 0.001, fine))
    timer.start()
    try:
        await fine.done.wait()
        assert begun == 1
        go.set()
    finally:
        timer.stop()


async def test_after_the_end_nothing_is_begun(site: Site) -> None:
    stopped, other = Work(), Work(enough=10)
    timer, beside = scheduler(site, Job("a", 0.001, stopped)), scheduler(site, Job("b", 0.001, other))
    timer.start()
    await stopped.done.wait()
    timer.stop()
    runs = stopped.runs
    beside.start()
    await other.done.wait()
    beside.stop()
    assert stopped.runs == runs


async def test_whoever_waits_for_the_end_waits_for_the_job_under_way(site: Site) -> None:
    go, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await go.wait()
        ended.set()

    timer = scheduler(site, Job("slow", 0.001, slow))
    timer.start()
    await begun.wait()
    timer.stop()
    waiting = asyncio.ensure_future(timer.settled())
    await asyncio.wait([waiting], timeout=0.01)
    assert not waiting.done()
    go.set()
    await waiting
    assert ended.is_set()
    await timer.settled()


async def test_every_job_can_be_done_twice(site: Site) -> None:
    await site.pair()
    timer = scheduler(site)
    before = await site.events("pairing.closed")
    for job in timer.jobs:
        assert await timer.run(job), job.name
        assert await timer.run(job), job.name
    assert await site.events("pairing.closed") == before == []


# Jobs that ask the database only if somebody is connected or something has happened.
WITH_NOTHING_TO_DO = (
    "tick",
    "flush audit",
    "keep settings",
    "close overdue channels",
    "close disabled accounts",
    "reload keys",
    "answer audit tails",
)


async def test_while_the_database_is_away_jobs_say_so_in_one_line_and_work_again_afterwards(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.pair()
    timer, breaker = scheduler(site), site.node.database.breaker
    breaker.outage = Outage("unreachable", asyncio.get_running_loop().time())
    for job in timer.jobs:
        if job.name not in WITH_NOTHING_TO_DO:
            caplog.clear()
            assert not await timer.run(job), job.name
            [record] = [each for each in caplog.records if each.name == "pairing_server.server.scheduler"]
            assert (record.getMessage(), vars(record)["job"]) == ("job postponed", job.name)
            assert vars(record)["reason"].startswith("The database ")
            assert record.exc_info is None
    breaker.outage = None
    assert all([await timer.run(job) for job in timer.jobs])


@pytest.fixture
def two(start_node: StartNode) -> tuple[Site, Site]:
    return start_node(), start_node()


async def test_the_timers_of_two_servers_do_each_thing_once(two: tuple[Site, Site]) -> None:
    one, other = two
    account = await one.account()
    for number in range(5):
        await one.code(account, f"desktop-{number}")
    timers = [scheduler(site, later=301) for site in two]
    for jobs in zip(*(timer.jobs for timer in timers), strict=True):
        done = await asyncio.gather(*(timer.run(job) for timer, job in zip(timers, jobs, strict=True)))
        assert done == [True, True], jobs[0].name
    assert len(await one.events("pairing.code_expired")) == 5
    assert one.node.backend.code_limits.live == other.node.backend.code_limits.live == 0


async def test_a_running_pair_lives_on_through_every_job_of_another_server(two: tuple[Site, Site]) -> None:
    one, other = two
    desktop, mobile = await one.pair()
    # Two minutes pass; the server that holds the channel notes it, the other one tidies up.
    for later in (30, 60, 90, 120):
        holder, tidier = scheduler(one, later=later), scheduler(other, later=later)
        for job in holder.jobs:
            if job.name == "note presence":
                assert await holder.run(job)
        for job in tidier.jobs:
            assert await tidier.run(job), job.name
    mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"a": 1}})
    assert (await desktop.socket.expect("channel_message"))["payload"] == {"a": 1}


async def test_the_connections_of_a_disabled_account_are_closed(site: Site) -> None:
    stays, goes = await site.account(), await site.account()
    kept, closed = await site.connect(stays, "desktop"), await site.connect(goes, "desktop")
    async with site.node.database.transaction() as conn:
        await users.set_disabled(conn, UUID(goes.subject), utcnow())
    await site.run("close disabled accounts")
    assert await closed.closed() == 4401
    assert await kept.pending() == []


async def test_after_a_start_and_after_an_outage_devices_have_a_minute_to_come_back(site: Site) -> None:
    """No presence could be noted meanwhile, so all devices seem to be gone."""
    for member in await site.pair():
        member.socket.send({"type": "leave_channel"})
        await member.socket.pending()
    await site.node.app.settled()
    async with site.node.database.transaction() as conn:
        await conn.execute(update(pairings).values(seen_at=utcnow() - timedelta(hours=1)))
    ahead = -100.0
    loop = asyncio.get_running_loop()
    timer = Scheduler(site.node.backend, utcnow, lambda: loop.time() + ahead)
    [job] = [job for job in timer.jobs if job.name == "close deserted pairings"]
    timer.start()
    timer.stop()
    assert await timer.run(job)
    assert await site.events("pairing.closed") == []
    ahead = 0.0
    site.node.database.breaker.back_at = loop.time()
    assert await timer.run(job)
    assert await site.events("pairing.closed") == []
    ahead = 61.0
    assert await timer.run(job)
    assert len(await site.events("pairing.closed")) == 1
