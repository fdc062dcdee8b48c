"""Token buckets, and the bounds of the protocol as they stand by default."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairing_server.relay.limits import ConnectionLimits, TokenBucket


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


def test_the_defaults_are_those_of_the_protocol() -> None:
    limits = ConnectionLimits()
    assert (limits.message_rate, limits.message_burst) == (60, 120)
    assert (limits.audio_rate, limits.audio_bytes_rate, limits.audio_bytes_burst) == (20, 524_288, 2_097_152)
    assert (limits.join_count, limits.join_seconds) == (5, 10)
    assert (limits.frame_rate, limits.ping_count, limits.ping_seconds, limits.fragments) == (200, 20, 10, 64)
    assert (limits.control_size, limits.message_size) == (16_384, 65_536)
    assert (limits.audio_size, limits.frame_size) == (524_288, 1_048_576)
    assert (limits.settings_keys, limits.nesting) == (64, 16)
    assert (limits.connections_per_address, limits.connections_per_user) == (200, 10)
    assert (limits.queue_pause, limits.queue_size, limits.queue_age) == (262_144, 1_048_576, 5)
    assert (limits.identify_within, limits.bad_in_a_row, limits.limited_for) == (10, 10, 10)
    assert (limits.token_warning, limits.token_grace) == (60, 30)
    assert (limits.ping_interval, limits.ping_timeout) == (25, 20)
    assert (limits.history_count, limits.history_size) == (256, 1_048_576)
