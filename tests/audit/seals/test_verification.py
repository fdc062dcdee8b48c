"""What is done to the audit log after it was sealed shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairing_server.audit.seals import SealKey, sealed_lines, verification
from pairing_server.audit.seals.memory import read_copies
from pairing_server.audit.seals.sealer import to_file
from pairing_server.clock import utcnow
from pairing_server.request_context import system
from tests.audit.sealing import SealedLog, events, sealed, sealing, triggers_off, verify

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
async def test_verification_names_the_seal_whose_rows_were_tampered_with(
    sealed_log: SealedLog, database_url: str, how: str
) -> None:
    expected, act = TAMPERINGS[how]
    await sealed(sealed_log, 3)
    async with triggers_off(database_url) as connection:
        await connection.execute(act)
    report = await verify(sealed_log)
    assert report.fault is not None
    assert report.fault.seal == expected, report.fault
    [*_, told] = await events(sealed_log, "audit.verify")
    assert (told["outcome"], told["first_bad"]) == ("failure", expected)


async def test_pages_of_a_verification_lose_and_repeat_nothing(
    sealed_log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed(sealed_log, 5)
    whole = await verify(sealed_log)
    for page in (1, 2, 3, 7):
        for what in ("SEALS", "DIGESTS"):
            monkeypatch.setattr(sealed_lines, what, page)
        report = await verify(sealed_log)
        # Each verification is recorded, and nothing is sealed meanwhile.
        assert (report.seals, report.rows, report.fault) == (whole.seals, whole.rows, None)


async def test_rows_that_waited_long_for_their_seal_are_counted_and_not_those_about_seals(
    sealed_log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed(sealed_log, 2)
    assert (await verify(sealed_log)).late == 0
    monkeypatch.setattr(verification, "LATE_SECONDS", -60)
    report = await verify(sealed_log)
    assert (report.late, report.right) == (report.rows - 1, True)


async def test_the_rows_under_a_bad_seal_are_named(sealed_log: SealedLog, database_url: str) -> None:
    await sealed(sealed_log, 3)
    async with triggers_off(database_url) as connection:
        await connection.execute(f"DELETE FROM audit_events WHERE {BOB}")
    report = await verify(sealed_log)
    # Of its rows two logins and the seal before are left.
    assert report.fault is not None
    assert "had 4 rows" in report.fault.what
    assert "now has 3" in report.fault.what
    assert report.n_suspects == 3
    assert sum("auth.login" in each for each in report.suspects) == 2


async def test_verification_refuses_seals_of_another_key(sealed_log: SealedLog, database_url: str) -> None:
    await sealed(sealed_log, 2)
    async with triggers_off(database_url) as connection:
        await connection.execute(f"DELETE FROM audit_events WHERE {BOB}")
        await connection.execute("DELETE FROM audit_seals")
    forger = sealing(sealed_log, key=SealKey.generate()[0])
    await forger.sealer.seal(system(utcnow()))
    assert (await verify(forger)).fault is None
    report = await verify(sealed_log)
    assert report.fault is not None
    assert report.fault.seal == 1
    assert "not trusted" in report.fault.what


async def test_copies_outside_reveal_seals_that_were_made_anew_with_the_same_key(
    sealed_log: SealedLog, database_url: str, tmp_path: Path
) -> None:
    copies = tmp_path / "copies.jsonl"
    sealed_log = sealing(sealed_log, tmp_path, copy=to_file(copies))
    await sealed(sealed_log, 3)
    known = read_copies(copies)
    assert sorted(known) == [1, 2, 3]
    assert (await verify(sealed_log, known)).fault is None
    async with triggers_off(database_url) as connection:
        await connection.execute(f"DELETE FROM audit_events WHERE {BOB}")
        await connection.execute("DELETE FROM audit_seals WHERE seal_no > 1")
    (tmp_path / "audit-last-seal").unlink()
    await sealed_log.sealer.seal(system(utcnow()))
    assert (await verify(sealed_log)).fault is None
    report = await verify(sealed_log, known)
    assert report.fault is not None
    assert (report.fault.seal, report.fault.what) == (2, "is another one than was copied outside")
