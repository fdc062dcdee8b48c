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
from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.request_context import system
from pairing_server.server.startup_checks import StartError, check_schema
from pairing_server.services.deps import Deps
from pairing_server.store import audit_events
from tests.audit.sealing import events, record, seal, sealed, sealed_again, sealing, triggers_off, verify
from tests.devices import Site


async def test_what_is_recorded_is_sealed_and_verifies(deps: Deps) -> None:
    await sealed(deps, 3)
    report = await verify(deps)
    assert (report.seals, report.fault) == (3, None)
    told = await events(deps, "audit.seal")
    assert [event["seal_no"] for event in told] == [1, 2, 3]
    async with deps.database.transaction() as conn:
        last = await store.last(conn)
    assert last is not None
    assert told[-1]["digest"] == last.digest.hex()
    assert sum(event["n_rows"] for event in told) == report.rows


async def test_the_digests_go_to_the_system_log(deps: Deps, caplog: pytest.LogCaptureFixture) -> None:
    await record(deps, "alice")
    with caplog.at_level(logging.INFO):
        [made] = await deps.sealer.seal(system(utcnow()))
    assert f"audit seal 1: {made.rows} rows, digest {made.digest.hex()}" in caplog.messages


async def test_a_seal_by_itself_is_no_reason_for_the_next_one(deps: Deps) -> None:
    await record(deps, "alice")
    assert await seal(deps) == [1]
    assert await seal(deps) == await seal(deps) == []
    await record(deps, "alice")
    assert await seal(deps) == [2]


async def test_a_verification_is_recorded(deps: Deps) -> None:
    await sealed(deps, 1)
    assert await events(deps, "audit.verify") == [
        {"outcome": "success", "seals": 1, "rows": 5, "first_bad": None}
    ]


async def test_a_transaction_under_way_is_sealed_once_it_has_ended_and_not_before(
    deps: Deps, database_url: str
) -> None:
    await record(deps, "before")
    late = await asyncpg.connect(database_url)
    try:
        transaction = late.transaction()
        await transaction.start()
        await late.execute(
            """INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind,
                actor_subject) VALUES (now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user', 'late')"""
        )
        await record(deps, "after")
        assert await seal(deps) == [1]
        assert (await verify(deps)).fault is None
        await transaction.commit()
    finally:
        await late.close()
    assert (await verify(deps)).fault is None
    assert await seal(deps) == [2]
    report = await verify(deps)
    assert report.fault is None
    assert report.unsealed == 1  # that of the second seal itself
    async with deps.database.transaction() as conn:
        first, second = await store.read(conn, 0, 10)
        rows = await store.rows(conn, (1, second.from_xid, -1), 100, lines=True)
    assert [json.loads(row.line)["actor"] for row in rows if row.xid < second.to_xid][:2] == ["late", "after"]
    assert first.to_xid == second.from_xid


async def test_a_seal_takes_no_more_rows_than_it_may_but_of_one_transaction(
    deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ROWS", 5)
    for number in range(6):
        await record(deps, *[f"user-{number}"] * 2)
    await record(deps, *["crowd"] * 20)
    await record(deps, "last")
    made = await deps.sealer.seal(system(utcnow()))
    assert all(each.rows <= 5 or each.rows == 20 for each in made)
    assert sum(each.rows for each in made) >= 33
    assert (await verify(deps)).fault is None


async def test_servers_that_seal_at_once_make_one_chain(site: Site, deps: Deps) -> None:
    """Eight write, some of them slowly, and four seal; every row is in exactly one seal."""
    done = asyncio.Event()

    async def write(number: int) -> None:
        for turn in range(25):
            async with deps.database.transaction() as conn:
                event = deps.audit.event("auth.login", "success", system(utcnow()), target=number, limit=turn)
                await audit_events.add(conn, [event])
                if number < 3:  # it stays open while others come and go
                    await conn.exec_driver_sql("SELECT pg_sleep(0.02)")
                    await audit_events.add(
                        conn,
                        [
                            replace(
                                event,
                                event_id=deps.audit.event("auth.login", "success", system(utcnow())).event_id,
                            )
                        ],
                    )

    async def go_on_sealing() -> None:
        while not done.is_set():
            await deps.sealer.seal(system(utcnow()))

    sealers = [asyncio.ensure_future(go_on_sealing()) for _ in range(2)]
    await asyncio.gather(*(write(number) for number in range(8)))
    done.set()
    await asyncio.gather(*sealers)
    await record(deps, "the end")
    await deps.sealer.seal(system(utcnow()))
    report = await verify(deps)
    assert report.fault is None
    async with deps.database.transaction() as conn:
        total = (await conn.exec_driver_sql("SELECT count(*) FROM audit_events")).scalar_one()
        summed = (await conn.exec_driver_sql("SELECT sum(n_rows) FROM audit_seals")).scalar_one()
    # What is not sealed yet tells of the last seal, and of the verification.
    assert report.rows == summed == total - 2
    logins = await events(deps, "auth.login")
    assert len(logins) == 8 * 25 + 3 * 25 + 1


async def test_copies_that_could_not_be_sent_are_sent_later(
    deps: Deps, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[int] = []
    away = True

    async def copy(line: str) -> None:
        if away:
            raise OSError("no route")
        sent.append(json.loads(line)["seal"])

    deps = sealing(deps, tmp_path, copy=copy)
    await sealed(deps, 2)
    assert "audit seal 1 could not be copied outside: no route" in caplog.messages
    away = False
    await sealed_again(deps)
    assert sent == [1, 2, 3]
    await deps.sealer.copy_outside()
    assert sent == [1, 2, 3]


async def test_an_epoch_that_ends_right_after_a_seal_is_sealed_to_its_end(
    site: Site, deps: Deps, database_url: str, tmp_path: Path
) -> None:
    """All that is left of it is that there was sealed."""
    await record(deps, "alice-1")
    assert await seal(deps) == [1]
    owner = Database(database_url)
    assert await sealing(replace(deps, database=owner), tmp_path).sealer.rebase(system(utcnow())) == 2
    await owner.close()
    await record(deps, "alice-2")
    await seal(deps)
    report = await verify(deps)
    assert report.fault is None
    assert report.seals == 3


async def test_after_a_restore_a_server_refuses_to_start_until_a_new_epoch_has_begun(
    site: Site, deps: Deps, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed(deps, 1)
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
        assert await seal(deps) == [2]
    async with triggers_off(database_url) as connection:  # its transaction, too, was one of the other cluster
        await connection.execute(
            "UPDATE audit_events SET xid = '1000000000006' WHERE event = 'audit.seal' AND attrs->>'seal_no' = '2'"
        )
    with pytest.raises(StartError, match="Run: pairing-server audit rebase"):
        await check_schema(site.node.database)
    owner = Database(database_url)
    assert await sealing(replace(deps, database=owner), tmp_path).sealer.rebase(system(utcnow())) == 2
    await owner.close()
    await check_schema(site.node.database)
    await record(deps, "alice-2")
    assert await seal(deps) == [4]
    report = await verify(deps)
    assert (report.seals, report.fault) == (4, None)
    [told] = await events(deps, "audit.rebase")
    assert told["epoch"] == 2
    async with triggers_off(database_url) as connection:
        await connection.execute("UPDATE audit_events SET outcome = 'error' WHERE xid = '1000000000009'")
    report = await verify(deps)
    assert report.fault is not None
    assert report.fault.seal == 3
