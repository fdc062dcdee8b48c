"""What must be true of a connection for its requests, and which go on to services."""

from __future__ import annotations

import pytest

from pairing_server.relay import requests
from pairing_server.relay.identity import Device
from tests.relay.wire import Relay

PING = {"type": "ping", "sequence": 1}
CHANNEL = "pair-123456"


def test_identify_and_join_are_returned_for_services_and_the_rest_is_not() -> None:
    client = Relay().client("desktop")
    identify = {"type": "identify", "device_type": "desktop", "session_id": "desktop-1"}
    assert isinstance(client.send(identify), requests.Identify)
    assert isinstance(
        client.send({"type": "join_channel", "channel": CHANNEL, "session_id": "desktop-1"}),
        requests.JoinChannel,
    )
    assert isinstance(client.send({"type": "refresh_token", "token": "t"}), requests.RefreshToken)
    assert client.send(PING) is None


@pytest.mark.parametrize("type_", ["identify", "join_channel"])
def test_the_device_type_must_be_the_tokens(type_: str) -> None:
    client = Relay().client("desktop")
    [error] = client.ask(
        {"type": type_, "device_type": "mobile", "session_id": "mobile-1", "channel": CHANNEL}
    )
    assert error["code"] == "DEVICE_TYPE_MISMATCH"
    assert error["details"] == {"device_type": "mobile", "token_device_type": "desktop"}


def test_a_connection_has_one_session_id() -> None:
    client = Relay().client("desktop")
    client.identify(Device("desktop-1"))
    for message in (
        {"type": "identify", "device_type": "desktop", "session_id": "desktop-2"},
        {"type": "join_channel", "channel": CHANNEL, "session_id": "desktop-2"},
    ):
        [error] = client.ask(message)
        assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": "session_id"})


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"session_id": "desktop-1"}, "channel"),
        ({"channel": CHANNEL}, "session_id"),
        ({"channel": CHANNEL, "channel_id": "pair-654321", "session_id": "desktop-1"}, "channel"),
    ],
)
def test_a_join_needs_a_channel_and_a_session_id(message: dict[str, str], field: str) -> None:
    [error] = Relay().client("desktop").ask({"type": "join_channel", **message})
    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": field})
