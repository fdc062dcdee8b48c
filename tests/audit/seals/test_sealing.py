"""The audit log is sealed, copied outside, and goes on after a restore."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from pairing_server.audit.store import seals as store
from pairing_server.audit.store.catalogue import isolated
from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.request_context import system
from pairing_server.server.startup_checks import StartError, check_schema
from pairing_server.store import audit_events
from tests.audit.sealing import (
    SealedLog,
    events,
    record,
    seal,
    sealed,
    sealed_again,
    sealing,
    triggers_off,
    verify,
)
from tests.conftest import execute_within
from tests.devices import Site
from tests.logged import logged


async def test_recorded_events_are_sealed_and_verify(sealed_log: SealedLog) -> None:
    await sealed(sealed_log, 3)
    report = await verify(sealed_log)
    assert (report.seals, report.fault) == (3, None)
    told = await events(sealed_log, "audit.seal")
    assert [event["seal_no"] for event in told] == [1, 2, 3]
    async with sealed_log.database.transaction() as conn, isolated(conn) as tables:
        last = await store.last(tables)
    assert last is not None
    assert told[-1]["digest"] == last.digest.hex()
    assert sum(event["n_rows"] for event in told) == report.rows


async def test_the_digests_go_to_the_system_log(
    sealed_log: SealedLog, caplog: pytest.LogCaptureFixture
) -> None:
    await record(sealed_log, "alice")
    with caplog.at_level(logging.INFO):
        [made] = await sealed_log.sealer.seal(system(utcnow()))
    assert logged(caplog, "audit sealed", "number", "rows", "digest") == [(1, made.rows, made.digest.hex())]


async def test_the_event_of_a_seal_alone_is_not_sealed(sealed_log: SealedLog) -> None:
    await record(sealed_log, "alice")
    assert await seal(sealed_log) == [1]
    assert await seal(sealed_log) == await seal(sealed_log) == []
    await record(sealed_log, "alice")
    assert await seal(sealed_log) == [2]


async def test_a_verification_is_recorded(sealed_log: SealedLog) -> None:
    await sealed(sealed_log, 1)
    assert await events(sealed_log, "audit.verify") == [
        {
            "outcome": "success",
            "seals": 1,
            "rows": 5,
            "excused": 0,
            "pending": 1,
            "reported": 0,
            "first_bad": None,
        }
    ]


async def test_an_open_transaction_is_sealed_after_it_has_ended(
    sealed_log: SealedLog, database_url: str
) -> None:
    await record(sealed_log, "before")
    late = await asyncpg.connect(database_url)
    try:
        transaction = late.transaction()
        await transaction.start()
        await late.execute(
            """INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind,
                actor_subject) VALUES (now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user', 'late')"""
        )
        await record(sealed_log, "after")
        assert await seal(sealed_log) == [1]
        assert (await verify(sealed_log)).fault is None
        await transaction.commit()
    finally:
        await late.close()
    assert (await verify(sealed_log)).fault is None
    assert await seal(sealed_log) == [2]
    report = await verify(sealed_log)
    assert report.fault is None
    assert report.unsealed == 1  # that of the second seal itself
    async with sealed_log.database.transaction() as conn, isolated(conn) as tables:
        first, second = await store.read(tables, 0, 10)
        rows = await store.rows(tables, (1, second.from_xid, 0), 100, lines=True)
    assert [json.loads(row.line)["actor"] for row in rows if row.xid < second.to_xid][:2] == ["late", "after"]
    assert first.to_xid == second.from_xid


async def test_a_seal_has_a_bounded_number_of_rows_except_of_one_transaction(
    sealed_log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ROWS", 5)
    for number in range(6):
        await record(sealed_log, *[f"user-{number}"] * 2)
    await record(sealed_log, *["crowd"] * 20)
    await record(sealed_log, "last")
    made = await sealed_log.sealer.seal(system(utcnow()))
    assert all(each.rows <= 5 or each.rows == 20 for each in made)
    assert sum(each.rows for each in made) >= 33
    assert (await verify(sealed_log)).fault is None


async def test_the_bound_of_a_seal_holds_where_transactions_get_a_digit_more(
    sealed_log: SealedLog, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ROWS", 5)
    await execute_within(
        database_url,
        """INSERT INTO audit_events (xid, occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind)
        SELECT n::text::xid8, now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user'
        FROM (VALUES (99), (100), (101)) AS old(n) CROSS JOIN generate_series(1, 4)""",
    )
    made = await sealed_log.sealer.seal(system(utcnow()))
    assert [each.rows for each in made][:3] == [4, 4, 4]


async def test_servers_that_seal_at_once_make_one_chain(site: Site, sealed_log: SealedLog) -> None:
    """Eight write, some of them slowly, and four seal; every row is in exactly one seal."""
    done = asyncio.Event()

    async def write(number: int) -> None:
        for turn in range(25):
            async with sealed_log.database.transaction() as conn:
                event = sealed_log.audit.event(
                    "auth.login", "success", system(utcnow()), target=number, limit=turn
                )
                await audit_events.add(conn, [event])
                if number < 3:  # it stays open while others come and go
                    await conn.exec_driver_sql("SELECT pg_sleep(0.02)")
                    await audit_events.add(
                        conn,
                        [
                            replace(
                                event,
                                event_id=sealed_log.audit.event(
                                    "auth.login", "success", system(utcnow())
                                ).event_id,
                            )
                        ],
                    )

    async def go_on_sealing() -> None:
        while not done.is_set():
            await sealed_log.sealer.seal(system(utcnow()))

    sealers = [asyncio.ensure_future(go_on_sealing()) for _ in range(2)]
    await asyncio.gather(*(write(number) for number in range(8)))
    done.set()
    await asyncio.gather(*sealers)
    await record(sealed_log, "the end")
    await sealed_log.sealer.seal(system(utcnow()))
    report = await verify(sealed_log)
    assert report.fault is None
    async with sealed_log.database.transaction() as conn:
        total = (await conn.exec_driver_sql("SELECT count(*) FROM audit_events")).scalar_one()
        summed = (await conn.exec_driver_sql("SELECT sum(n_rows) FROM audit_seals")).scalar_one()
    # What is not sealed yet tells of the last seal, and of the verification.
    assert report.rows == summed == total - 2
    logins = await events(sealed_log, "auth.login")
    assert len(logins) == 8 * 25 + 3 * 25 + 1


async def test_copies_that_could_not_be_sent_are_sent_later(
    sealed_log: SealedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[int] = []
    away = True

    async def copy(line: str) -> None:
        if away:
            raise OSError("no route")
        sent.append(json.loads(line)["seal"])

    sealed_log = sealing(sealed_log, tmp_path, copy=copy)
    await sealed(sealed_log, 2)
    assert (1, "no route") in logged(caplog, "audit seal not copied outside", "number", "error")
    away = False
    await sealed_again(sealed_log)
    assert sent == [1, 2, 3]
    await sealed_log.sealer.copy_outside(utcnow())
    assert sent == [1, 2, 3]


async def test_an_epoch_that_ends_right_after_a_seal_is_sealed_to_its_end(
    site: Site, sealed_log: SealedLog, database_url: str, tmp_path: Path
) -> None:
    """All that is left of it is that there was sealed."""
    await record(sealed_log, "alice-1")
    assert await seal(sealed_log) == [1]
    owner = Database(database_url)
    assert await sealing(replace(sealed_log, database=owner), tmp_path).sealer.rebase(system(utcnow())) == 2
    await owner.close()
    await record(sealed_log, "alice-2")
    await seal(sealed_log)
    report = await verify(sealed_log)
    assert report.fault is None
    assert report.seals == 3


async def test_after_a_restore_a_server_refuses_to_start_until_a_new_epoch_has_begun(
    site: Site, sealed_log: SealedLog, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed(sealed_log, 1)
    # What another cluster recorded, whose transactions had come further.
    later = await asyncpg.connect(database_url)
    try:
        await later.execute(
            """INSERT INTO audit_events (xid, occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind)
            SELECT n::text::xid8, now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user'
            FROM (VALUES (1000000000000), (1000000000009)) AS old(n)"""
        )
    finally:
        await later.close()

    async def far(_: object) -> int:
        return 1_000_000_000_005

    with monkeypatch.context() as patch:
        patch.setattr(store, "horizon", far)
        assert await seal(sealed_log) == [2]
    async with triggers_off(database_url) as connection:  # its transaction, too, was one of the other cluster
        await connection.execute(
            "UPDATE audit_events SET xid = '1000000000006' WHERE event = 'audit.seal' AND attrs->>'seal_no' = '2'"
        )
    with pytest.raises(StartError, match="Run: pairing-server audit rebase"):
        await check_schema(site.node.database)
    owner = Database(database_url)
    assert await sealing(replace(sealed_log, database=owner), tmp_path).sealer.rebase(system(utcnow())) == 2
    await owner.close()
    await check_schema(site.node.database)
    await record(sealed_log, "alice-2")
    assert await seal(sealed_log) == [4]
    report = await verify(sealed_log)
    assert (report.seals, report.fault) == (4, None)
    [told] = await events(sealed_log, "audit.rebase")
    assert told["epoch"] == 2
    async with triggers_off(database_url) as connection:
        await connection.execute("UPDATE audit_events SET outcome = 'error' WHERE xid = '1000000000009'")
    report = await verify(sealed_log)
    assert report.fault is not None
    assert report.fault.seal == 3
