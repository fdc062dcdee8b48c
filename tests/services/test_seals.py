"""The audit log is sealed, and what is done to it afterwards shows: in the database and in an export."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tornado.ioloop import IOLoop

from pairing_server.maintenance import SYSTEM
from pairing_server.seals import Report, SealKey, verify_export
from pairing_server.services import audit_export, seals
from pairing_server.services.deps import Deps
from pairing_server.starting import StartError, check_schema
from pairing_server.store import audit, audit_search
from pairing_server.store import seals as store
from pairing_server.store.database import Database
from pairing_server.web.edge import utcnow
from tests.devices import Site

KEY = SealKey.generate()[0]


@pytest.fixture
def deps(io_loop: IOLoop, site: Site, tmp_path: Path) -> Deps:
    """Of a node that does nothing by itself, and remembers in `tmp_path`. Its log has two rows: that it has started."""

    async def begin() -> None:
        site.node.maintenance.stop()
        await site.node.maintenance.settled()
        await site.node.audit.flush(site.node.deps, SYSTEM, utcnow())

    io_loop.run_sync(begin)
    return replace(site.node.deps, sealer=seals.Sealer(KEY, "node-1", tmp_path))


async def record(deps: Deps, *actors: str) -> None:
    """One event for each actor, in one transaction."""
    caller = replace(SYSTEM, kind="user")
    async with deps.database.transaction() as conn:
        await audit.add(
            conn,
            [
                deps.audit.event(
                    "auth.login", "success", replace(caller, subject=actor), utcnow(), target=place
                )
                for place, actor in enumerate(actors)
            ],
        )


async def seal(deps: Deps) -> list[int]:
    return [made.number for made in await seals.seal(deps, SYSTEM, utcnow())]


async def verify(deps: Deps, copies: dict[int, str] | None = None) -> Report:
    return await seals.verify(deps, copies or {}, SYSTEM, utcnow())


async def events(deps: Deps, name: str) -> list[dict[str, Any]]:
    async with deps.database.transaction() as conn:
        found = (await audit_search.page(conn, audit_search.Filter(event=name), 1000)).events
    return [{"outcome": row.event.outcome, **row.event.attrs} for row in reversed(found)]


async def sealed(deps: Deps, count: int = 3) -> None:
    """So many seals, each over the logins of alice-N, bob-N and carol-N."""
    for number in range(1, count + 1):
        await record(deps, *(f"{name}-{number}" for name in ("alice", "bob", "carol")))
        assert await seal(deps) == [number]
    assert (await verify(deps)).fault is None


# Sealing


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
        [made] = await seals.seal(deps, SYSTEM, utcnow())
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
    made = await seals.seal(deps, SYSTEM, utcnow())
    assert all(each.rows <= 5 or each.rows == 20 for each in made)
    assert sum(each.rows for each in made) >= 33
    assert (await verify(deps)).fault is None


async def test_servers_that_seal_at_once_make_one_chain(site: Site, deps: Deps) -> None:
    """Eight write, some of them slowly, and four seal; every row is in exactly one seal."""
    done = asyncio.Event()

    async def write(number: int) -> None:
        for turn in range(25):
            async with deps.database.transaction() as conn:
                event = deps.audit.event("auth.login", "success", SYSTEM, utcnow(), target=number, limit=turn)
                await audit.add(conn, [event])
                if number < 3:  # it stays open while others come and go
                    await conn.exec_driver_sql("SELECT pg_sleep(0.02)")
                    await audit.add(
                        conn,
                        [
                            replace(
                                event,
                                event_id=deps.audit.event("auth.login", "success", SYSTEM, utcnow()).event_id,
                            )
                        ],
                    )

    async def go_on_sealing() -> None:
        while not done.is_set():
            await seals.seal(deps, SYSTEM, utcnow())

    sealing = [asyncio.ensure_future(go_on_sealing()) for _ in range(2)]
    await asyncio.gather(*(write(number) for number in range(8)))
    done.set()
    await asyncio.gather(*sealing)
    await record(deps, "the end")
    await seals.seal(deps, SYSTEM, utcnow())
    report = await verify(deps)
    assert report.fault is None
    async with deps.database.transaction() as conn:
        total = (await conn.exec_driver_sql("SELECT count(*) FROM audit_events")).scalar_one()
        summed = (await conn.exec_driver_sql("SELECT sum(n_rows) FROM audit_seals")).scalar_one()
    # What is not sealed yet tells of the last seal, and of the verification.
    assert report.rows == summed == total - 2
    logins = await events(deps, "auth.login")
    assert len(logins) == 8 * 25 + 3 * 25 + 1


# Restored from a dump


async def test_after_a_restore_a_server_refuses_to_start_until_a_new_epoch_has_begun(
    site: Site, deps: Deps, database_url: str, monkeypatch: pytest.MonkeyPatch
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
    assert await seals.rebase(replace(deps, database=owner), SYSTEM, utcnow()) == 2
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


# Tampering, as whoever may do everything in the database


@asynccontextmanager
async def triggers_off(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        yield connection
    finally:
        await connection.close()


ALICE, BOB = "actor_subject = 'alice-2'", "actor_subject = 'bob-2'"
TAMPERINGS = {
    "an update": (2, f"UPDATE audit_events SET outcome = 'failure' WHERE {BOB}"),
    "an update of a time": (
        2,
        f"UPDATE audit_events SET occurred_at = occurred_at - interval '1 s' WHERE {BOB}",
    ),
    "an update of an attribute": (2, f"UPDATE audit_events SET attrs = attrs || '{{\"n\": 7}}' WHERE {BOB}"),
    "a move to another month": (
        2,
        f"UPDATE audit_events SET recorded_at = recorded_at + interval '31 days' WHERE {BOB}",
    ),
    "a move to another epoch": (2, f"UPDATE audit_events SET epoch = 2 WHERE {BOB}"),
    "a deletion": (2, f"DELETE FROM audit_events WHERE {BOB}"),
    "an insertion": (
        2,
        f"""INSERT INTO audit_events (xid, occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind)
        SELECT xid, now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user' FROM audit_events WHERE {BOB}""",
    ),
    "an insertion before everything": (
        1,
        """INSERT INTO audit_events (xid, epoch, occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind)
        SELECT '3', 0, now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user'""",
    ),
    "another order": (
        2,
        f"""UPDATE audit_events AS e SET seq = other.seq FROM audit_events AS other
        WHERE (e.{ALICE} AND other.{BOB}) OR (e.{BOB} AND other.{ALICE})""",
    ),
    "a seal dropped": (2, "DELETE FROM audit_seals WHERE seal_no = 2"),
    "the first seal dropped": (1, "DELETE FROM audit_seals WHERE seal_no = 1"),
    "the last seal dropped": (3, "DELETE FROM audit_seals WHERE seal_no = 3"),
    "all seals dropped": (3, "DELETE FROM audit_seals"),
    "a seal changed to fit": (
        2,
        f"""WITH gone AS (DELETE FROM audit_events WHERE {BOB})
        UPDATE audit_seals SET n_rows = n_rows - 1,
            parts = jsonb_set(parts, '{{0,rows}}', to_jsonb(n_rows - 1)) WHERE seal_no = 2""",
    ),
    "a seal's time changed": (
        2,
        "UPDATE audit_seals SET sealed_at = sealed_at - interval '1 day' WHERE seal_no = 2",
    ),
    "two seals swapped": (
        1,
        "UPDATE audit_seals SET seal_no = 10 - seal_no WHERE seal_no < 3",
    ),
    "a seal stretched": (2, "UPDATE audit_seals SET to_xid = '9999999' WHERE seal_no = 2"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
async def test_tampering_shows_and_the_seal_is_named(deps: Deps, database_url: str, how: str) -> None:
    expected, act = TAMPERINGS[how]
    await sealed(deps, 3)
    async with triggers_off(database_url) as connection:
        await connection.execute(act)
    report = await verify(deps)
    assert report.fault is not None
    assert report.fault.seal == expected, report.fault
    [*_, told] = await events(deps, "audit.verify")
    assert (told["outcome"], told["first_bad"]) == ("failure", expected)


async def test_the_rows_under_a_bad_seal_are_named(deps: Deps, database_url: str) -> None:
    await sealed(deps, 3)
    async with triggers_off(database_url) as connection:
        await connection.execute(f"DELETE FROM audit_events WHERE {BOB}")
    report = await verify(deps)
    # Of its rows two logins and the seal before are left.
    assert report.fault is not None
    assert "had 4 rows" in report.fault.what
    assert "now has 3" in report.fault.what
    assert report.n_suspects == 3
    assert sum("auth.login" in each for each in report.suspects) == 2


async def test_seals_made_anew_with_another_key_show(deps: Deps, database_url: str) -> None:
    await sealed(deps, 2)
    async with triggers_off(database_url) as connection:
        await connection.execute(f"DELETE FROM audit_events WHERE {BOB}")
        await connection.execute("DELETE FROM audit_seals")
    forger = replace(deps, sealer=seals.Sealer(SealKey.generate()[0], "node-1"))
    await seals.seal(forger, SYSTEM, utcnow())
    assert (await verify(forger)).fault is None
    report = await verify(deps)
    assert report.fault is not None
    assert report.fault.seal == 1
    assert "not trusted" in report.fault.what


async def test_what_was_copied_outside_shows_that_seals_were_made_anew_with_the_same_key(
    deps: Deps, database_url: str, tmp_path: Path
) -> None:
    copies = tmp_path / "copies.jsonl"
    deps = replace(deps, sealer=replace(deps.sealer, copy=seals.to_file(copies)))
    await sealed(deps, 3)
    known = seals.read_copies(copies)
    assert sorted(known) == [1, 2, 3]
    assert (await verify(deps, known)).fault is None
    async with triggers_off(database_url) as connection:
        await connection.execute(f"DELETE FROM audit_events WHERE {BOB}")
        await connection.execute("DELETE FROM audit_seals WHERE seal_no > 1")
    (tmp_path / "audit-last-seal").unlink()
    await seals.seal(deps, SYSTEM, utcnow())
    assert (await verify(deps)).fault is None
    report = await verify(deps, known)
    assert report.fault is not None
    assert (report.fault.seal, report.fault.what) == (2, "is another one than was copied outside")


async def test_copies_that_could_not_be_sent_are_sent_later(
    deps: Deps, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[int] = []
    away = True

    async def copy(line: str) -> None:
        if away:
            raise OSError("no route")
        sent.append(json.loads(line)["seal"])

    deps = replace(deps, sealer=replace(deps.sealer, copy=copy))
    await sealed(deps, 2)
    assert "audit seal 1 could not be copied outside: no route" in caplog.messages
    away = False
    await sealed_again(deps)
    assert sent == [1, 2, 3]
    await seals.copy_outside(deps)
    assert sent == [1, 2, 3]


async def sealed_again(deps: Deps) -> None:
    await record(deps, "alice")
    await seal(deps)


# Exports


async def export(deps: Deps, **how: Any) -> list[str]:
    return [line async for line in audit_export.lines(deps, utcnow(), **how)]


def check(lines: list[str], key: SealKey = KEY) -> Report:
    return verify_export((f"{line}\n".encode() for line in lines), {key.public})


async def test_an_export_verifies_by_itself_with_the_public_key_alone(deps: Deps) -> None:
    await sealed(deps, 3)
    await record(deps, "late")
    report = check(await export(deps))
    assert (report.seals, report.fault) == (3, None)
    async with deps.database.transaction() as conn:
        total = (await conn.exec_driver_sql("SELECT count(*) FROM audit_events")).scalar_one()
    assert report.rows + report.unsealed == total
    assert check(await export(deps), SealKey.generate()[0]).fault is not None


async def test_pages_of_an_export_lose_and_repeat_nothing(
    deps: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed(deps, 5)
    whole = await export(deps)
    for page in (1, 2, 3, 7):
        monkeypatch.setattr(audit_export, "_PAGE", page)
        assert (await export(deps))[1:] == whole[1:]


async def test_of_what_is_not_wanted_an_export_has_only_digests_and_still_verifies(deps: Deps) -> None:
    await sealed(deps, 3)
    lines = await export(deps, keep=lambda event: str(event["actor"]).startswith("bob"))
    text = "\n".join(lines)
    assert "alice" not in text
    assert all(f"bob-{number}" in text for number in (1, 2, 3))
    assert check(lines).fault is None
    assert check([line.replace("bob-2", "eve-2") for line in lines]).fault is not None


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("changed", 2),
        ("removed", 2),
        ("swapped", 2),
        ("added", 2),
        ("seal removed", 2),
        ("seal changed", 2),
    ],
)
async def test_an_export_that_was_tampered_with_names_the_seal(deps: Deps, how: str, expected: int) -> None:
    await sealed(deps, 3)
    lines = await export(deps)
    bob = next(place for place, line in enumerate(lines) if '"actor":"bob-2"' in line)
    its = next(place for place, line in enumerate(lines) if line.startswith('{"seal":2,'))
    if how == "changed":
        lines[bob] = lines[bob].replace('"outcome":"success"', '"outcome":"failure"')
    elif how == "removed":
        del lines[bob]
    elif how == "swapped":
        lines[bob], lines[bob - 1] = lines[bob - 1], lines[bob]
    elif how == "added":
        lines.insert(bob, lines[bob].replace("bob-2", "eve-2"))
    elif how == "seal removed":
        del lines[its]
    else:
        lines[its] = lines[its].replace('"node":"node-1"', '"node":"node-2"')
    report = check(lines)
    assert report.fault is not None
    assert report.fault.seal == expected


async def test_an_export_of_a_month_has_its_rows_and_the_seals_they_are_in(
    deps: Deps, database_url: str
) -> None:
    await record(deps, "alice-1")
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            """INSERT INTO audit_events (recorded_at, occurred_at, event_id, event, severity, outcome, node, app_version,
                actor_kind, actor_subject)
            SELECT now() - interval '70 days', now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user', 'bob'"""
        )
    finally:
        await connection.close()
    await seal(deps)
    await sealed_again(deps)
    then = (utcnow() - timedelta(days=70)).strftime("%Y%m")
    lines = await export(deps, months=[then])
    assert [json.loads(line).get("actor", "-") for line in lines] == ["-", "bob", "-"]
    report = check(lines)
    assert (report.seals, report.rows, report.fault) == (1, 1, None)
    assert check([lines[0], lines[2]]).fault is not None
