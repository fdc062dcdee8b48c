"""Rows whose recorded_at is impossible are found, whichever server sealed them."""

from __future__ import annotations

import pytest

from pairing_server.audit.seals import RecordingTimes
from pairing_server.audit.seals.recording_times import SLACK_SECONDS

SEALED = 10_000.0
BACKDATED, TOO_NEW = "it was backdated", "is newer than its seal, or than now"


@pytest.mark.parametrize(
    ("rows", "faults"),
    [
        # (transaction, recorded_at)
        ([(1, 100), (2, 200), (3, 300)], [None, None, None]),
        # A transaction that began first may record last.
        ([(1, 100 + SLACK_SECONDS), (2, 100)], [None, None]),
        ([(1, 101 + SLACK_SECONDS), (2, 100)], [None, BACKDATED]),
        # What one transaction records may be of any length.
        ([(1, 5000), (1, 100), (2, 5000)], [None, None, None]),
        ([(1, 5000), (2, 100), (3, 4990), (4, 200)], [None, BACKDATED, None, BACKDATED]),
        # A row of the future does not make honest ones look old.
        ([(1, 9000), (2, 90_000), (3, 9001)], [None, TOO_NEW, None]),
        ([(1, SEALED + SLACK_SECONDS), (2, SEALED + SLACK_SECONDS + 1)], [None, TOO_NEW]),
        ([(1, -(2**62)), (2, 100), (3, -(2**62)), (4, 2**62)], [None, None, BACKDATED, TOO_NEW]),
    ],
)
def test_rows_older_than_earlier_ones_or_newer_than_their_seal_are_reported(
    rows: list[tuple[int, float]], faults: list[str | None]
) -> None:
    times = RecordingTimes()
    found = [times.fault((1, xid), recorded_at, SEALED) for xid, recorded_at in rows]
    assert [bool(fault) for fault in found] == [bool(fault) for fault in faults]
    assert all(text is None or text in str(fault) for text, fault in zip(faults, found, strict=True))


def test_a_new_epoch_is_later_than_the_one_before() -> None:
    times = RecordingTimes()
    assert times.fault((1, 900), 5000, SEALED) is None
    assert times.fault((2, 3), 5001, SEALED) is None
    assert BACKDATED in str(times.fault((2, 4), 100, SEALED))
