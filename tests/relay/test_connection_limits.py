"""The limits of the protocol that are not settings."""

from __future__ import annotations

from pairing_server.config import Configuration


def test_the_limits_that_are_not_settings_are_those_of_the_protocol() -> None:
    limits = Configuration().connection_limits
    assert (limits.ping_count, limits.ping_seconds, limits.fragments) == (20, 10, 64)
    assert (limits.control_size, limits.message_size) == (16_384, 65_536)
    assert (limits.audio_size, limits.frame_size) == (524_288, 1_048_576)
    assert (limits.settings_keys, limits.nesting) == (64, 16)
    assert (limits.queue_pause, limits.queue_size, limits.queue_age) == (262_144, 1_048_576, 5)
    assert (limits.identify_within, limits.bad_in_a_row, limits.limited_for) == (10, 10, 10)
    assert (limits.token_warning, limits.token_grace) == (60, 30)
    assert (limits.ping_interval, limits.ping_timeout) == (25, 20)
    assert (limits.history_count, limits.history_size) == (256, 1_048_576)
