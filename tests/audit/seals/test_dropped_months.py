"""A month may be missing only if a sealed row says rightly that it was dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pairing_server.audit.seals import NOTHING, DroppedMonths, Part, RetentionRow, Seal

DAYS = 400
# 2026-11-05, which is 400 days after 2025-10-01.
DROPPED_AT = 1_793_836_800
DIGEST = b"r" * 32
ROW = RetentionRow((1, 90), 17, DROPPED_AT, DIGEST, ends="202510", rows=12, last_seal=3)


def seal(number: int, **months: int) -> Seal:
    parts = tuple(Part(month.removeprefix("m"), rows, NOTHING) for month, rows in months.items())
    return Seal(number, 1, 0, 0, parts, NOTHING, "2026-11-05T00:01:00.000000Z", "n")


SEALS = (seal(1, m202508=5), seal(2, m202508=3, m202509=4), seal(3, m202510=2), seal(4, m202611=6))


def looked_at(row: RetentionRow, *, there: tuple[str, ...] = (), covering: int = 4) -> DroppedMonths:
    """All that is before 2025-10 is missing, but for the months `there` in seal 2; the row is in seal `covering`."""
    dropped = DroppedMonths([row], DAYS)
    for each in SEALS:
        missing = {part.month for part in each.parts if part.month < "202510"}
        if each.number == 2:
            missing -= set(there)
        dropped.add(each, missing, {DIGEST} if each.number == covering else set())
    return dropped


def test_a_sealed_row_excuses_the_months_before_its_own_and_counts_them() -> None:
    dropped = looked_at(ROW)
    assert dropped.first_unexcused is None
    assert dropped.unexcused == (0, 0)
    [excuse] = dropped.excuses
    assert (excuse.row.seq, excuse.seal, excuse.months) == (17, 4, ("202508", "202509"))
    assert (excuse.seals, excuse.rows) == (2, 12)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (replace(ROW, recorded_at=DROPPED_AT - 86_400 * 10), "these rows were not yet 400 days old"),
        # The seal's time is signed, the row's is not.
        (replace(ROW, ends="202511", recorded_at=DROPPED_AT * 2), "these rows were not yet 400 days old"),
        (replace(ROW, rows=11), "it says 11 rows, the seals say 12"),
        (replace(ROW, rows=13), "it says 13 rows, the seals say 12"),
        (replace(ROW, last_seal=1), "it names seal 1 as the last one before it"),
        (replace(ROW, last_seal=4), "it names seal 4 as the last one before it"),
        (replace(ROW, ends="202508"), "no sealed event audit.retention says"),
        (
            RetentionRow.parse((1, 90), 17, DROPPED_AT, DIGEST, {"ends": "2025", "rows": 12}),
            "no sealed event",
        ),
        (RetentionRow.parse((1, 90), 17, DROPPED_AT, DIGEST, {"ends": [], "rows": {}}), "no sealed event"),
    ],
)
def test_a_row_that_is_early_or_does_not_fit_the_seals_excuses_nothing(row: RetentionRow, why: str) -> None:
    dropped = looked_at(row)
    assert dropped.excuses == []
    assert dropped.first_unexcused == 1
    assert dropped.unexcused == (2, 12)
    assert why in dropped.why(1)
    assert "had 5 rows of 2025-08 when it was made, and now has 0" in dropped.why(1)


def test_a_month_of_which_rows_are_still_there_was_not_dropped() -> None:
    dropped = looked_at(replace(ROW, rows=9), there=("202508",))
    assert "other rows of 2025-08 are still there" in dropped.why(1)


def test_a_row_that_no_seal_covers_excuses_nothing_yet() -> None:
    dropped = looked_at(ROW, covering=0)
    assert dropped.first_unexcused == 1
    assert dropped.undecided
    assert "no seal covers it yet" in dropped.why(1)


def test_what_is_missing_from_a_seal_after_the_row_is_not_excused() -> None:
    dropped = looked_at(ROW)
    dropped.add(seal(5, m202508=1), {"202508"}, set())
    assert dropped.first_unexcused == 5
