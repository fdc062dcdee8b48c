"""How much one connection may send of what, and what comes of sending more."""

from __future__ import annotations

import pytest

from pairing_server.relay import requests
from pairing_server.relay.rate_limits import ConnectionRateLimits
from pairing_server.websocket.commands import COMMANDS
from tests.relay.wire import Relay, codes

PING = {"type": "ping", "sequence": 1}
CHANNEL = "pair-123456"


def test_a_connection_may_send_sixty_a_second_and_a_hundred_and_twenty_at_once() -> None:
    relay = Relay()
    client = relay.client("desktop")
    for _ in range(121):
        client.send(PING)
    *pongs, error = client.received()
    assert len(pongs) == 120
    assert (error["code"], error["retryable"]) == ("RATE_LIMITED", True)
    assert error["details"] == {"limit": "messages", "retry_after_ms": 17}
    relay.pass_time(1)
    for _ in range(61):
        client.send(PING)
    assert [m["type"] for m in client.received()] == ["pong"] * 60 + ["error"]


def test_what_is_over_the_rate_does_not_reach_the_peer() -> None:
    desktop, mobile = Relay().pair()
    for number in range(130):
        desktop.send({"type": "channel_message", "payload": {"n": number}})
    assert len(mobile.received()) == 120
    assert codes(desktop) == ["RATE_LIMITED"] * 10


def test_a_slider_at_sixty_a_second_is_never_limited() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    for number in range(1200):
        desktop.send({"type": "channel_message", "payload": {"n": number}})
        relay.pass_time(1 / 60)
    assert desktop.received() == []
    assert len(mobile.received()) == 1200


def test_audio_has_a_rate_of_its_own() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    for _ in range(21):
        desktop.send({"type": "audio_chunk", "data": "AAAA"})
    [error] = desktop.received()
    assert error["details"] == {"limit": "audio", "retry_after_ms": 50}
    assert len(mobile.received()) == 20
    assert desktop.ask(PING) == [{"type": "pong", "sequence": 1}]


def test_audio_is_limited_in_bytes_too() -> None:
    relay = Relay(queue_pause=2**40, queue_size=2**40)
    desktop, mobile = relay.pair()
    chunk = {"type": "audio_chunk", "data": "A" * 500_000}
    for _ in range(5):
        desktop.send(chunk)
    [error] = desktop.received()
    assert error["details"]["limit"] == "audio_bytes"
    assert len(mobile.received()) == 4
    relay.pass_time(1)
    desktop.send(chunk)
    assert len(mobile.received()) == 1


def test_five_joins_in_ten_seconds_are_enough() -> None:
    relay = Relay()
    client = relay.client("desktop")
    join = {"type": "join_channel", "channel": CHANNEL, "session_id": "desktop-1"}
    for _ in range(5):
        assert client.send(join) is not None
    assert client.send(join) is None
    [error] = client.received()
    assert error["details"] == {"limit": "joins", "retry_after_ms": 2000}
    relay.pass_time(2)
    assert client.send(join) is not None


@pytest.mark.parametrize(
    "message",
    [
        {"type": "identify", "device_type": "desktop", "session_id": "desktop-1"},
        {"type": "refresh_token", "token": "a.b.c"},
    ],
)
def test_what_the_database_or_a_key_is_needed_for_has_a_rate_of_its_own(message: dict[str, str]) -> None:
    relay = Relay()
    client = relay.client("desktop")
    for _ in range(20):
        assert client.send(message) is not None
    assert client.send(message) is None
    [error] = client.received()
    assert error["details"] == {"limit": "services", "retry_after_ms": 500}
    client.send(PING)
    assert client.received()[-1]["type"] == "pong", "other messages are served"
    relay.pass_time(0.5)
    assert client.send(message) is not None


def test_each_type_that_services_answer_is_charged_for_it() -> None:
    served = {command.struct for command in COMMANDS.by_struct.values() if command.serve is not None}
    charged = {
        command.struct
        for command in COMMANDS.by_struct.values()
        if command.charge in (ConnectionRateLimits.charge_service, ConnectionRateLimits.charge_join)
    }
    # Each leaving needs a join before it.
    assert served - charged == {requests.LeaveChannel}


def test_refusals_are_limited_as_well() -> None:
    client = Relay().client("desktop")
    for _ in range(1000):
        client.send(PING)
    assert len(codes(client)) == 20


def test_ten_seconds_over_the_limit_close() -> None:
    relay = Relay()
    client = relay.client("desktop")
    seconds = 0.0
    while client.close_code is None and seconds < 20:
        for _ in range(30):
            client.send(PING)
        relay.pass_time(0.1)
        seconds += 0.1
    assert client.close_code == 4429
    assert 10 <= seconds < 12
    assert client.received()[-1]["code"] == "RATE_LIMITED"
    assert relay.events("limit.rate") == [{"scope": "connection", "limit": "messages"}]


def test_a_pause_after_exceeding_the_limit_keeps_the_connection_open() -> None:
    relay = Relay()
    client = relay.client("desktop")
    for _ in range(20):
        for _ in range(200):
            client.send(PING)
        relay.pass_time(3)
    assert client.close_code is None
    assert len(relay.events("limit.rate")) == 20
