"""The report of a soak; nothing is measured here."""

from __future__ import annotations

import pytest

from endure.soak import largest_changes, slope


def test_the_slope_is_that_of_the_line_through_the_points() -> None:
    assert slope([(0, 1.0), (1, 3.0), (2, 5.0)]) == pytest.approx(2.0)
    assert slope([(0, 4.0), (1, 5.0), (2, 4.0)]) == pytest.approx(0.0)
    assert slope([(1, 7.0)]) == 0.0


def test_the_types_that_have_changed_most_come_first_and_those_that_have_not_are_left_out() -> None:
    before = {"builtins.list": 10, "builtins.dict": 5, "uuid.UUID": 7, "builtins.set": 3}
    after = {"builtins.list": 12, "builtins.dict": 5, "uuid.UUID": 50, "asyncio.Task": 1}
    assert (
        largest_changes(before, after) == "uuid.UUID +43, builtins.set -3, builtins.list +2, asyncio.Task +1"
    )
    assert largest_changes(before, after, count=1) == "uuid.UUID +43"
    assert largest_changes(before, before) == "none"
