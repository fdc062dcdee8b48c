"""Token buckets: what they let through, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairing_server.relay.token_bucket import TokenBucket


def test_a_bucket_allows_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=60, burst=120, now=0)
    assert [bucket.take(0) for _ in range(120)] == [0] * 120
    assert bucket.take(0) == pytest.approx(1 / 60)
    assert bucket.take(1 / 60 + 1e-9) == 0
    assert bucket.take(1 / 60 + 1e-9) > 0


def test_a_refusal_costs_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=0)
    assert bucket.take(0) == 0
    for _ in range(100):
        assert bucket.take(0.5) == pytest.approx(0.5)
    assert bucket.take(1) == 0


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(rate=60, burst=2, now=0)
    assert [bucket.take(3600) > 0 for _ in range(3)] == [False, False, True]


def test_more_than_the_burst_is_allowed_from_a_full_bucket_and_paid_for_later() -> None:
    bucket = TokenBucket(rate=100, burst=200, now=0)
    assert bucket.take(0, 500) == 0
    assert bucket.take(0, 1) == pytest.approx(3.01)
    assert bucket.take(4, 1) == 0


@given(st.lists(st.floats(min_value=0, max_value=0.2), max_size=200))
def test_no_timing_gets_more_through_than_burst_and_rate(pauses: list[float]) -> None:
    bucket, now, taken = TokenBucket(rate=20, burst=20, now=0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now) == 0
    assert taken <= 20 + 20 * now + 1e-6
