"""All connections are closed: spread over time, and the members of a channel together."""

from __future__ import annotations

from typing import Any

import pytest

from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.hub import CLOSED_AT_ONCE, LONGEST_SPREAD, SPREAD_STEP
from tests.relay.wire import Client, Relay

# What a client without a close frame takes for the code.
BROKEN = 1006


def close_all(relay: Relay) -> list[bool]:
    done: list[bool] = []
    relay.hub.close_connections(lambda: done.append(True))
    return done


def open_pairs(relay: Relay, count: int) -> list[tuple[Client, Client]]:
    return [relay.pair(f"pair-{number:06d}") for number in range(count)]


def closed(pairs: list[tuple[Client, Client]]) -> list[tuple[bool, bool]]:
    return [(desktop.close_code is not None, mobile.close_code is not None) for desktop, mobile in pairs]


def test_few_connections_are_closed_at_once() -> None:
    relay = Relay()
    pairs = open_pairs(relay, CLOSED_AT_ONCE // 2)
    close_all(relay)
    assert {client.close_code for pair in pairs for client in pair} == {BROKEN}


ORIGINAL = (
    {"type": "ping", "sequence": 1},
    {"type": "pong", "sequence": 1},
    {"type": "identify", "device_type": "desktop", "session_id": "desktop-session", "user_agent": "App/1.0"},
    {
        "type": "join_channel",
        "channel": "pair-123456",
        "device_type": "desktop",
        "session_id": "desktop-session",
    },
    {"type": "channel_message", "channelId": "pair-123456", "payload": {"action": "STATE_UPDATE"}},
    {"type": "settings_sync", "channelId": "pair-123456", "settings": {"audioGain": 75}},
    {"type": "audio_chunk", "chunk_id": "chunk-001", "data": "AAAA", "format": "webm", "sample_rate": 16000},
    {"type": "gossip"},
    "no JSON",
)
ADDITIONS: tuple[dict[str, Any] | bytes, ...] = (
    {"type": "channel_message", "payload": {}, "id": "m-1"},
    {"type": "settings_sync", "settings": {}, "base_rev": 0},
    {"type": "settings_sync", "settings": {}, "fill": True},
    {"type": "join_channel", "channel": "pair-123456", "last_seq": 0},
    {"type": "join_channel", "channel": "pair-123456", "epoch": "an epoch"},
    {"type": "join_channel", "channel": "pair-123456", "binary_audio": True},
    {"type": "leave_channel"},
    {"type": "unpair"},
    {"type": "pairing_confirm"},
    {"type": "pairing_reject"},
    {"type": "refresh_token", "token": "a token"},
    bytes(12),
)


def test_a_client_of_the_original_messages_is_dropped_so_that_it_comes_back() -> None:
    """It connects again only when its connection breaks."""
    relay = Relay()
    desktop, mobile = relay.pair()
    for message in ORIGINAL:
        desktop.send(message)
    mobile.send({"type": "channel_message", "payload": {}, "id": 1})
    close_all(relay)
    assert (desktop.close_code, mobile.close_code) == (BROKEN, CloseCode.RESTART)
    assert desktop.connection.close_code == CloseCode.RESTART
    assert desktop.connection.closing


@pytest.mark.parametrize("addition", ADDITIONS, ids=str)
def test_one_addition_is_enough_for_a_close_frame(addition: dict[str, Any] | bytes) -> None:
    relay = Relay()
    desktop, _ = relay.pair()
    desktop.send(addition)
    close_all(relay)
    assert desktop.close_code == CloseCode.RESTART


def test_many_are_closed_one_after_the_other_and_both_of_a_channel_together() -> None:
    relay = Relay()
    pairs = open_pairs(relay, 100)
    close_all(relay)
    gone = []
    while not all(desktop for desktop, _ in closed(pairs)):
        states = closed(pairs)
        assert all(desktop == mobile for desktop, mobile in states)
        gone.append(sum(desktop for desktop, _ in states))
        relay.pass_time(SPREAD_STEP)
    assert gone == sorted(gone)
    assert len(gone) == pytest.approx(200 / CLOSED_AT_ONCE, abs=1)


def test_a_channel_that_is_not_closed_yet_works() -> None:
    relay = Relay()
    pairs = open_pairs(relay, 100)
    close_all(relay)
    desktop, mobile = next(pair for pair in pairs if pair[0].close_code is None)
    assert desktop.ask({"type": "channel_message", "payload": {"n": 1}, "id": 1})[0]["type"] == "ack"
    assert mobile.types() == ["channel_message"]


def test_however_many_there_are_all_are_closed_in_time() -> None:
    relay = Relay(connections_per_user=100_000, connections_per_address=100_000)
    clients = [relay.client("desktop") for _ in range(12_000)]
    close_all(relay)
    for _ in range(round(LONGEST_SPREAD / SPREAD_STEP)):
        relay.pass_time(SPREAD_STEP)
    assert all(client.close_code == BROKEN for client in clients)


def test_it_is_done_when_the_last_is_gone_and_at_once_without_any() -> None:
    relay = Relay()
    assert close_all(relay) == [True]
    client = relay.client("desktop")
    done = close_all(relay)
    assert done == []
    relay.hub.remove(client.connection, "Connection closed", relay.now)
    assert done == [True]
