"""The limits of one connection: what it may send, and what may wait to be sent to it. Local to this process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits of docs/protocol.md, "Limits": rates a second, sizes in bytes, times in seconds.

    What is a setting has its default in the configuration; what is fixed has its value here.
    """

    message_rate: float
    message_burst: float
    audio_rate: float
    audio_bytes_rate: float
    audio_bytes_burst: float
    frame_rate: float
    join_count: float
    join_seconds: float
    service_count: float
    service_seconds: float
    connections_per_address: int
    connections_per_user: int
    reconnect_grace: float
    ping_count: float
    ping_seconds: float
    fragments: int
    refusals_rate: float
    refusals_burst: float
    limited_for: float = 10
    bad_in_a_row: int = 10
    identify_within: float
    control_size: int
    message_size: int
    audio_size: int
    frame_size: int
    settings_keys: int
    nesting: int
    # Outbound: from `queue_pause` on, the peer is not read and audio is dropped; past `queue_size` or
    # `queue_age` the slow receiver is closed. `in_flight` is what the transport may hold at a time.
    in_flight: int = 64 * 1024
    queue_pause: int
    queue_size: int
    queue_age: float
    history_count: int
    history_size: int
    token_warning: float = 60
    token_grace: float = 30
    ping_interval: float = 25
    ping_timeout: float = 20
