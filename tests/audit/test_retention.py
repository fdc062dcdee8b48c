"""Old months of the audit log are exported and dropped, and what is left verifies; a silent drop does not."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from pairing_server.audit.retention import Retention
from pairing_server.audit.seals import Report, verify_export
from pairing_server.audit.seals.sealed_lines import SealedLines
from pairing_server.clock import utcnow
from pairing_server.request_context import system
from tests.audit.sealing import KEY, SealedLog, sealing, triggers_off
from tests.audit.store.test_partitions import fetch, old_partition
from tests.devices import Site

COUNT = "SELECT count(*) FROM audit_events WHERE recorded_at < now() - interval '1 year'"


@pytest.fixture
def sealed_log(io_loop: IOLoop, site: Site, database_url: str, tmp_path: Path) -> SealedLog:
    """Of a node that does nothing by itself; its log has a row of four years ago in a partition of its own."""

    async def begin() -> None:
        await old_partition(database_url, months=15)
        await site.node.audit.flush(system(utcnow()))

    io_loop.run_sync(begin)
    return sealing(site.node.backend, tmp_path)


def retention(sealed_log: SealedLog, days: int, folder: Path | None = None) -> Retention:
    lines = SealedLines(sealed_log.reading, KEY.public)
    return Retention(sealed_log.database, lines, sealed_log.audit, days, folder)


async def verify(sealed_log: SealedLog) -> str | None:
    report = await sealed_log.verifier.verify(system(utcnow()), {})
    return report.fault.what if report.fault else None


def exported(folder: Path) -> Report:
    [file] = folder.glob("*.jsonl")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return verify_export(file.read_bytes().splitlines(), {KEY.public})


async def test_an_old_sealed_partition_is_exported_then_dropped_and_the_rest_verifies(
    sealed_log: SealedLog, database_url: str, tmp_path: Path
) -> None:
    assert len(await sealed_log.sealer.seal(system(utcnow()))) == 1
    rule = retention(sealed_log, 400, tmp_path)
    assert await rule.drop_old(system(utcnow())) == 1
    assert await rule.drop_old(system(utcnow())) == 0
    assert await fetch(database_url, COUNT) == [(0,)]
    [(attrs,)] = await fetch(
        database_url, "SELECT attrs::text FROM audit_events WHERE event = 'audit.retention'"
    )
    assert json.loads(attrs)["rows"] == 1
    assert "no seal covers it yet" in str(await verify(sealed_log))
    report = exported(tmp_path)
    assert (report.fault, report.seals, report.rows) == (None, 1, 1)
    await sealed_log.sealer.seal(system(utcnow()))
    report = await sealed_log.verifier.verify(system(utcnow()), {})
    assert report.right
    [excuse] = report.excused
    assert (report.seals, excuse.seals, excuse.rows, excuse.seal) == (1, 1, 1, 2)
    # By a verifier who expects more of the server, it is not.
    sealed_log.verifier.days = 2000
    assert "these rows were not yet 2000 days old" in str(await verify(sealed_log))


async def test_rows_that_were_taken_out_before_their_partition_was_dropped_are_missed(
    sealed_log: SealedLog, database_url: str
) -> None:
    await sealed_log.sealer.seal(system(utcnow()))
    async with triggers_off(database_url) as owner:
        await owner.execute("DELETE FROM audit_events_old")
    assert await retention(sealed_log, 400).drop_old(system(utcnow())) == 1
    await sealed_log.sealer.seal(system(utcnow()))
    assert "it says 0 rows, the seals say 1" in str(await verify(sealed_log))


async def test_no_name_of_a_partition_chooses_the_file_and_no_export_takes_the_place_of_another(
    sealed_log: SealedLog, database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    await fetch(database_url, 'ALTER TABLE audit_events_old RENAME TO "../../taken"')
    await sealed_log.sealer.seal(system(utcnow()))
    rule = retention(sealed_log, 400, folder)
    partition = await rule._due(utcnow())
    assert partition is not None
    for _ in range(2):
        await rule._export(partition, folder, utcnow())
    assert [path.name for path in folder.iterdir()] == ["audit_events_first.jsonl"]
    before = (folder / "audit_events_first.jsonl").read_text()
    async with triggers_off(database_url) as owner:
        await owner.execute('DELETE FROM "../../taken"')
    await rule._export(partition, folder, utcnow())
    assert (folder / "audit_events_first.jsonl").read_text() == before
    assert (folder / "audit_events_first-2.jsonl").exists()


async def test_a_partition_within_the_retention_is_kept(sealed_log: SealedLog, database_url: str) -> None:
    await sealed_log.sealer.seal(system(utcnow()))
    assert await retention(sealed_log, 36_500).drop_old(system(utcnow())) == 0
    assert await fetch(database_url, COUNT) == [(1,)]


async def test_an_unsealed_partition_is_not_dropped(sealed_log: SealedLog, database_url: str) -> None:
    with pytest.raises(Exception, match="not wholly sealed"):
        await retention(sealed_log, 400).drop_old(system(utcnow()))
    assert await fetch(database_url, COUNT) == [(1,)]


async def test_a_partition_that_cannot_be_exported_is_not_dropped(
    sealed_log: SealedLog, database_url: str, tmp_path: Path
) -> None:
    await sealed_log.sealer.seal(system(utcnow()))
    with pytest.raises(OSError, match="missing"):
        await retention(sealed_log, 400, tmp_path / "missing").drop_old(system(utcnow()))
    assert await fetch(database_url, COUNT) == [(1,)]


async def test_verification_reveals_a_partition_that_was_dropped_without_a_record(
    sealed_log: SealedLog, database_url: str
) -> None:
    await sealed_log.sealer.seal(system(utcnow()))
    await fetch(database_url, "DROP TABLE audit_events_old")
    assert "1 rows of" in str(await verify(sealed_log))
