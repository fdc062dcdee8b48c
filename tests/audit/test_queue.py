"""Events in the queue: refusals are folded; events survive outages and a killed process, and are written once."""

from __future__ import annotations

import json
import resource
import signal
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tornado.ioloop import IOLoop

from pairing_server.audit.spool import Spool
from pairing_server.clock import utcnow
from pairing_server.errors import BadCredentials, InvalidCode, RateLimited, Unavailable
from pairing_server.request_context import RequestContext, system
from pairing_server.server.server import Node
from tests.audit.logs import NOW, Switchable, audit_log, invalid_message
from tests.devices import Site


@pytest.fixture
def node(io_loop: IOLoop, site: Site) -> Node:
    """A node without timers; the events of its start are written."""

    async def begin() -> None:
        await site.node.audit.flush(system(NOW))

    io_loop.run_sync(begin)
    return site.node


async def recorded(url: str, event: str = "msg.invalid") -> Counter[str]:
    """How often each rule was recorded."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT attrs->>'rule' AS rule FROM audit_events WHERE event = $1", event
        )
        return Counter(str(row["rule"]) for row in rows)
    finally:
        await connection.close()


def expected(count: int) -> Counter[str]:
    return Counter(f"rule-{number}" for number in range(count))


# Floods


async def test_of_a_flood_of_failed_logins_eleven_rows_are_left_and_the_counts_add_up(
    site: Site, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, now = RequestContext(utcnow(), address="203.0.113.7", address_key="203.0.113.7"), NOW
    for turn in range(60):
        with pytest.raises((BadCredentials, RateLimited)):
            await site.node.services.authentication.log_in(
                caller.at(now), f"nobody-{turn}", "a wrong password"
            )
    await node.audit.flush(system(now + timedelta(minutes=1)))
    async with node.database.transaction() as conn:
        rows = await conn.exec_driver_sql(
            "SELECT reason, count(*), sum(count) FROM audit_events WHERE event = 'auth.login' GROUP BY reason"
        )
        found = {reason: (number, total) for reason, number, total in rows}
    assert found == {"unknown_user": (11, 30), "locked": (11, 30)}
    [lockout] = await site.events("auth.lockout")
    assert (lockout["scope"], lockout["outcome"]) == ("login_address", "denied")


async def test_a_login_that_locks_its_user_out_is_an_event(site: Site, node: Node) -> None:
    for turn in range(11):
        caller = RequestContext(utcnow(), address=f"203.0.113.{turn}", address_key=f"203.0.113.{turn}")
        with pytest.raises((BadCredentials, RateLimited)):
            await site.node.services.authentication.log_in(caller.at(NOW), "ada", "a wrong password")
    [lockout] = await site.events("auth.lockout")
    assert lockout["scope"] == "login_user"
    assert datetime.fromisoformat(lockout["until"]) == NOW + timedelta(seconds=900)


async def test_of_a_flood_of_wrong_codes_eleven_rows_are_left_and_the_counts_add_up(
    site: Site, node: Node
) -> None:
    caller = RequestContext(
        utcnow(), subject="https://id.example|eve", address="203.0.113.7", address_key="203.0.113.7"
    )
    for _ in range(40):
        with pytest.raises((InvalidCode, RateLimited)):
            await site.node.services.pairings.redeem_code(caller.at(NOW), "000000", "mobile-1")
    await node.audit.flush(system(NOW + timedelta(minutes=1)))
    async with node.database.transaction() as conn:
        rows = await conn.exec_driver_sql(
            "SELECT reason, count(*), sum(count) FROM audit_events WHERE event = 'pairing.redeem' GROUP BY reason"
        )
        assert {reason: (number, total) for reason, number, total in rows} == {
            "no_such_code": (10, 10),
            "locked": (11, 30),
        }


async def test_successes_are_never_folded(node: Node, site: Site) -> None:
    admin = RequestContext(utcnow(), kind="admin")
    for number in range(15):
        await site.node.services.accounts.add_user(
            admin.at(NOW), f"user-{number}", "a long enough password", "user"
        )
    assert len(await site.events("account.created")) == 15


async def test_changes_of_accounts_are_recorded(node: Node, site: Site) -> None:
    admin = RequestContext(utcnow(), kind="admin")
    user = await site.node.services.accounts.add_user(admin.at(NOW), "ada", "a long enough password", "user")
    await site.node.services.accounts.set_disabled(admin.at(NOW), "ada", True)
    await site.node.services.accounts.set_disabled(admin.at(NOW), "ada", False)
    await site.node.services.accounts.set_password(admin.at(NOW), "ada", "another long password")
    await site.node.services.accounts.set_role(admin.at(NOW), "ada", "auditor")
    for name in ("account.disabled", "account.enabled", "account.password_changed"):
        [event] = await site.events(name)
        assert (event["target"], event["outcome"]) == (user.subject, "success"), name
    [event] = await site.events("account.role_changed")
    assert (event["was"], event["role"]) == ("user", "auditor")


# Starting and stopping


async def test_the_start_and_the_stop_of_recording_are_recorded(site: Site, database_url: str) -> None:
    [started] = await site.events("audit.started")
    assert started["spooled_bytes"] == 0
    await site.node.stop()
    connection = await asyncpg.connect(database_url)
    try:
        names = (
            "SELECT event FROM audit_events WHERE event ~ '^(audit.stopped|system.stopping)$' ORDER BY seq"
        )
        assert [row["event"] for row in await connection.fetch(names)] == ["system.stopping", "audit.stopped"]
    finally:
        await connection.close()


async def test_a_job_that_fails_is_recorded(site: Site) -> None:
    from pairing_server.server.scheduler import Job

    async def broken() -> None:
        raise LookupError("nothing to be told")

    assert not await site.node.scheduler.run(Job("broken", 1, broken))
    [error] = await site.events("system.error")
    assert (error["where"], error["exception_class"], error["outcome"]) == ("broken", "LookupError", "error")


# The spool


async def test_events_of_an_outage_are_written_once_and_in_order_after_it(
    node: Node, database_url: str, tmp_path: Path
) -> None:
    database = Switchable(node.database)
    log = audit_log(database, 50)
    log.spool_to(tmp_path / "spool", NOW)
    database.away = True
    for number in range(1700):
        log.enqueue(invalid_message(log, number))
        if number % 400 == 0:
            with pytest.raises(Unavailable):
                await log.flush(system(NOW))
    database.away = False
    assert log.spooled > 1700 * 300
    await log.flush(system(NOW))
    assert await recorded(database_url) == expected(1700)
    assert log.spooled == 0
    async with node.database.transaction() as conn:
        rules = "SELECT attrs->>'rule' FROM audit_events WHERE event = 'msg.invalid' ORDER BY seq"
        assert list((await conn.exec_driver_sql(rules)).scalars()) == [
            f"rule-{number}" for number in range(1700)
        ]
    log.close()
    await database.close()
    assert list((tmp_path / "spool").iterdir()) == []


async def test_events_of_a_dead_process_are_written_once_by_the_next(
    node: Node, database_url: str, tmp_path: Path
) -> None:
    dead = audit_log(node.database)
    dead.spool_to(tmp_path / "spool", NOW)
    for number in range(30):
        dead.enqueue(invalid_message(dead, number))
    [file] = (tmp_path / "spool").iterdir()
    written = file.read_bytes()
    await dead.flush(system(NOW))
    dead.close()
    # Killed after the commit, before the file was emptied; and once more in the middle of a line.
    (tmp_path / "spool" / "1-a-000001.jsonl").write_bytes(written + b'{"event_id": "torn')
    for _ in range(2):
        log = audit_log(node.database)
        assert log.spool_to(tmp_path / "spool", NOW) in (len(written) + 18, 0)
        await log.flush(system(NOW))
        log.close()
    assert await recorded(database_url) == expected(30)
    assert log.lost == 0


async def test_a_replay_that_was_killed_writes_no_event_twice(
    node: Node, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.open(NOW.timestamp())
    log = audit_log(node.database)
    long_ago = [
        replace(invalid_message(log, number), occurred_at=NOW - timedelta(days=30)) for number in range(1200)
    ]
    log._queue.spool = spool
    for event in long_ago:
        log._queue.put(event)
    spool.close()

    class Killed(BaseException):
        pass

    async def stop(_: Any) -> None:
        raise Killed

    first = audit_log(node.database)
    now = datetime.now(UTC)
    first.spool_to(tmp_path / "spool", now)
    segment = first._queue.spool.oldest()  # type: ignore[union-attr]
    assert segment is not None
    original, batches = segment.read, iter(range(10))

    def read(offset: int, most: int) -> tuple[list[bytes], int]:
        if next(batches) == 2:
            raise Killed
        return original(offset, most)

    monkeypatch.setattr(segment, "read", read)
    with pytest.raises(Killed):
        await first.flush(system(now))
    first.close()
    assert sum((await recorded(database_url)).values()) == 1000
    second = audit_log(node.database)
    second.spool_to(tmp_path / "spool", now + timedelta(hours=1))
    await second.flush(system(now))
    second.close()
    assert await recorded(database_url) == expected(1200)


async def test_a_batch_whose_commit_was_in_doubt_is_not_written_twice(
    node: Node, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database commits, and the answer is lost on the way."""
    log = audit_log(node.database)
    for number in range(20):
        log.enqueue(invalid_message(log, number))
    add = log._queue._add

    async def lose(lines: Any) -> None:
        await add(lines)
        raise Unavailable

    monkeypatch.setattr(log._queue, "_add", lose)
    with pytest.raises(Unavailable):
        await log.flush(system(NOW))
    monkeypatch.setattr(log._queue, "_add", add)
    log.enqueue(invalid_message(log, 20))
    await log.flush(system(NOW))
    assert await recorded(database_url) == expected(21)


async def test_a_line_that_is_no_event_is_counted_as_lost_and_does_not_block_others(
    node: Node, database_url: str, tmp_path: Path
) -> None:
    log = audit_log(node.database)
    log.spool_to(tmp_path / "spool", NOW)
    log.enqueue(invalid_message(log, 0))
    [file] = (tmp_path / "spool").iterdir()
    good = file.read_bytes()
    (tmp_path / "spool" / "1-a-000001.jsonl").write_bytes(b"\x00\xff\n[]\n" + good)
    log.close()
    other = audit_log(node.database)
    other.spool_to(tmp_path / "spool", NOW)
    await other.flush(system(NOW))
    await other.flush(system(NOW))
    assert await recorded(database_url) == expected(1)
    assert (await gaps(node)) == [(2, "6:2")]
    other.close()


async def gaps(node: Node) -> list[tuple[int, str]]:
    async with node.database.transaction() as conn:
        rows = await conn.exec_driver_sql(
            "SELECT attrs::text FROM audit_events WHERE event = 'audit.gap' ORDER BY seq"
        )
        return [(found["lost"], found["lost_by_severity"]) for found in map(json.loads, rows.scalars())]


async def test_when_the_spool_is_full_info_is_lost_first_and_the_loss_is_recorded(
    node: Node, database_url: str, tmp_path: Path
) -> None:
    log = audit_log(node.database, 1)
    log.spool_to(tmp_path / "spool", NOW)
    assert log._queue.spool is not None
    log._queue.spool._cap = 40_000
    size = len(json.dumps({})) + 500
    for number in range(200):
        log.enqueue(
            log.event(
                "ws.connected",
                "success",
                RequestContext(utcnow(), subject=f"user-{number}").at(NOW),
                jti="x" * 100,
            )
        )
    lost = log.lost
    assert 0 < lost < 200
    for number in range(8):
        log.enqueue(invalid_message(log, number))
    assert log.lost == lost, size
    await log.flush(system(NOW))
    await log.flush(system(NOW))
    assert await recorded(database_url) == expected(8)
    assert await gaps(node) == [(lost, f"6:{lost}")]
    log.close()


async def test_without_a_folder_events_wait_in_memory(
    node: Node, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = audit_log(node.database)
    (tmp_path / "file").write_text("")
    assert log.spool_to(tmp_path / "file" / "spool", NOW) == 0
    assert "audit spool not usable, events wait in memory only" in caplog.messages
    log.enqueue(invalid_message(log, 0))
    await log.flush(system(NOW))
    assert await recorded(database_url) == expected(1)


async def test_client_text_is_one_line_on_disk_and_in_the_database(
    node: Node, database_url: str, tmp_path: Path
) -> None:
    """Line ends, escapes, quotes, formulas, direction marks, NUL, and far too much of it."""
    nasty = [
        "a\r\nb",
        "\x1b[2Jx",
        "=cmd|' /C calc'!A0",
        '"; DROP TABLE audit_events; --',
        "\u202etxt.exe",
        "\u0000",
        "\u2028",
        "x" * 10_240,
    ]
    log = audit_log(node.database)
    log.spool_to(tmp_path / "spool", NOW)
    for number, text in enumerate(nasty):
        caller = RequestContext(utcnow(), subject=f"user-{number}", address="203.0.113.9")
        log.enqueue(log.event("ws.connected", "success", caller.at(NOW), ua=text, origin=text))
    [file] = (tmp_path / "spool").iterdir()
    assert len(file.read_bytes().splitlines()) == len(nasty)
    log.close()
    other = audit_log(node.database)
    other.spool_to(tmp_path / "spool", NOW)
    await other.flush(system(NOW))
    other.close()
    async with node.database.transaction() as conn:
        agents = "SELECT attrs->>'ua' FROM audit_events WHERE event = 'ws.connected' ORDER BY seq"
        found = list((await conn.exec_driver_sql(agents)).scalars())
    assert len(found) == len(nasty)
    assert all(text.isprintable() and len(text) <= 200 for text in found)
    assert other.lost == 0


async def test_a_database_that_is_another_server_than_before_is_recorded(site: Site) -> None:
    await site.node.database.ready()
    site.node.database._server = "10.0.0.1 started last week"
    await site.node.database.ready()
    [failover] = await site.events("db.failover")
    assert failover["outcome"] == "success"


async def test_when_the_disk_is_full_events_wait_in_memory_and_losses_are_recorded(
    node: Node, database_url: str, tmp_path: Path
) -> None:
    database = Switchable(node.database)
    log = audit_log(database, 20)
    log.spool_to(tmp_path / "spool", NOW)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    database.away = True
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
        for number in range(60):
            log.enqueue(invalid_message(log, number))
        with pytest.raises(Unavailable):
            await log.flush(system(NOW))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
        database.away = False
    assert log.lost == 40
    await log.flush(system(NOW))  # makes room for the event that tells of it
    await log.flush(system(NOW))
    assert log.lost == 40
    log.close()
    await database.close()
    assert await recorded(database_url) == expected(20)
    assert await gaps(node) == [(40, "4:40")]
