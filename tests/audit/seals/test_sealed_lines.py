"""The lines of the audit log and its seals are verified by themselves."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from pairing_server.audit.seals import Report, SealKey, sealed_lines, verify_export
from pairing_server.audit.seals.sealed_lines import SealedLines
from pairing_server.audit.store.filters import Filter
from pairing_server.clock import utcnow
from tests.audit.sealing import KEY, SealedLog, record, seal, sealed, sealed_again


async def export(sealed_log: SealedLog, **how: Any) -> list[str]:
    batches = SealedLines(sealed_log.reading, sealed_log.sealer.key.public).batches(utcnow(), **how)
    return [line async for batch in batches for line in batch]


def check(lines: list[str], key: SealKey = KEY) -> Report:
    return verify_export((f"{line}\n".encode() for line in lines), {key.public})


async def test_an_export_verifies_by_itself_with_the_public_key_alone(sealed_log: SealedLog) -> None:
    await sealed(sealed_log, 3)
    await record(sealed_log, "late")
    report = check(await export(sealed_log))
    assert (report.seals, report.fault) == (3, None)
    async with sealed_log.database.transaction() as conn:
        total = (await conn.exec_driver_sql("SELECT count(*) FROM audit_events")).scalar_one()
    assert report.rows + report.unsealed == total
    assert check(await export(sealed_log), SealKey.generate()[0]).fault is not None


async def test_pages_of_an_export_lose_and_repeat_nothing(
    sealed_log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed(sealed_log, 5)
    whole = await export(sealed_log)
    for page in (1, 2, 3, 7):
        for what in ("SEALS", "LINES"):
            monkeypatch.setattr(sealed_lines, what, page)
        assert (await export(sealed_log))[1:] == whole[1:]


async def test_a_filtered_export_has_digests_of_the_other_events_and_verifies(
    sealed_log: SealedLog,
) -> None:
    await sealed(sealed_log, 3)
    lines = await export(sealed_log, which=Filter(actor="bob-2"))
    text = "\n".join(lines)
    assert "alice" not in text
    assert [number for number in (1, 2, 3) if f"bob-{number}" in text] == [2]
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
async def test_an_export_that_was_tampered_with_names_the_seal(
    sealed_log: SealedLog, how: str, expected: int
) -> None:
    await sealed(sealed_log, 3)
    lines = await export(sealed_log)
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
        lines[its] = lines[its].replace('"node":"', '"node":"not ')
    report = check(lines)
    assert report.fault is not None
    assert report.fault.seal == expected


async def test_an_export_of_a_month_has_its_rows_and_the_seals_they_are_in(
    sealed_log: SealedLog, database_url: str
) -> None:
    await record(sealed_log, "alice-1")
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            """INSERT INTO audit_events (recorded_at, occurred_at, event_id, event, severity, outcome, node, app_version,
                actor_kind, actor_subject)
            SELECT now() - interval '70 days', now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user', 'bob'"""
        )
    finally:
        await connection.close()
    await seal(sealed_log)
    await sealed_again(sealed_log)
    then = (utcnow() - timedelta(days=70)).strftime("%Y%m")
    lines = await export(sealed_log, months=[then])
    assert [json.loads(line).get("actor", "-") for line in lines] == ["-", "bob", "-"]
    report = check(lines)
    assert (report.seals, report.rows, report.fault) == (1, 1, None)
    assert check([lines[0], lines[2]]).fault is not None
