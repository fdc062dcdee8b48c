"""What one socket may do when, what time does to it, and how it ends."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from pairing_server.errors import Unavailable
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.identity import Device, Identity
from tests.relay.wire import LOGGED_IN, Relay, codes

PING = {"type": "ping", "sequence": 1}
CHANNEL = "pair-123456"


# What is legal when


@pytest.mark.parametrize(
    "message",
    [
        {"type": "channel_message", "payload": {}},
        {"type": "settings_sync", "settings": {"gain": 1}},
        {"type": "audio_chunk", "data": "AAAA"},
        {"type": "leave_channel"},
        {"type": "unpair"},
    ],
)
def test_before_joining_a_message_for_a_channel_is_refused(message: dict[str, object]) -> None:
    client = Relay().client("desktop")
    [error] = client.ask({**message, "channel": CHANNEL})
    assert (error["code"], error["details"]) == ("NOT_IN_CHANNEL", {"channel": CHANNEL})
    assert client.ask(message)[0]["details"] == {}
    assert client.close_code is None


@pytest.mark.parametrize("name", ["channel", "channelId", "channel_id"])
@pytest.mark.parametrize(
    "type_", ["channel_message", "settings_sync", "audio_chunk", "leave_channel", "unpair"]
)
def test_a_message_naming_another_channel_is_refused_and_reported(type_: str, name: str) -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    relay.pair("pair-654321")
    body = {"payload": {}, "settings": {"gain": 1}, "data": "AAAA"}
    [error] = desktop.ask({"type": type_, name: "pair-654321", **body})
    assert (error["code"], error["details"]) == ("INVALID_CHANNEL", {"channel": "pair-654321"})
    assert mobile.received() == []
    assert relay.events("channel.denied") == [{"reason": "foreign"}]


@pytest.mark.parametrize("name", ["channel", "channelId", "channel_id"])
def test_the_joined_channel_may_be_named_by_any_of_three_names_or_not_at_all(name: str) -> None:
    desktop, mobile = Relay().pair()
    desktop.send({"type": "channel_message", "payload": {}, name: CHANNEL})
    desktop.send({"type": "channel_message", "payload": {}})
    assert mobile.types() == ["channel_message", "channel_message"]


def test_names_that_disagree_are_refused_even_if_one_is_right() -> None:
    desktop, mobile = Relay().pair()
    [error] = desktop.ask(
        {"type": "channel_message", "payload": {}, "channel": CHANNEL, "channelId": "pair-654321"}
    )
    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": "channel"})
    assert mobile.received() == []


@pytest.mark.parametrize("pad", ["x", "é"])
def test_a_channel_message_may_be_as_large_as_the_limit_and_not_a_byte_more(pad: str) -> None:
    desktop, mobile = Relay().pair()
    form = '{"type":"channel_message","payload":{"a":"%s"}}'
    room = 64 * 1024 - len(form) + 2
    count, rest = divmod(room, len(pad.encode()))
    fits = form % (pad * count + "x" * rest)
    assert desktop.ask(fits) == []
    assert mobile.types() == ["channel_message"]
    [error] = desktop.ask(fits + " ")
    assert (error["code"], error["details"]) == ("PAYLOAD_TOO_LARGE", {"limit": 65_536, "size": 65_537})
    assert mobile.received() == []


@pytest.mark.parametrize("payload", [[], "{", None, {"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}])
def test_a_payload_that_is_refused_takes_no_number(payload: object) -> None:
    desktop, mobile = Relay().pair()
    [error] = desktop.ask({"type": "channel_message", "payload": payload, "id": "m1"})
    assert (error["code"], error["details"], error["id"]) == ("VALIDATION_ERROR", {"field": "payload"}, "m1")
    assert mobile.received() == []
    desktop.send({"type": "channel_message", "payload": {}})
    assert [message["seq"] for message in mobile.received()] == [1]


def test_a_ping_is_answered_with_its_sequence() -> None:
    client = Relay().client("desktop")
    assert client.ask({"type": "ping", "sequence": 41}) == [{"type": "pong", "sequence": 41}]
    assert client.ask({"type": "ping"}) == [{"type": "pong", "sequence": 0}]


def test_a_clients_pong_is_ignored() -> None:
    desktop, mobile = Relay().pair()
    assert desktop.ask({"type": "pong", "sequence": 1}) == []
    assert mobile.received() == []


def test_joining_another_channel_leaves_the_first() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    desktop.join(relay.channel("pair-654321"))
    assert desktop.types() == ["channel_left", "channel_joined"]
    assert mobile.types() == ["desktop_disconnected"]


# Bad messages


@pytest.mark.parametrize("bad", ["{", '{"type":"nonsense"}', '{"type":"identify"}', b"\x00\x01"])
def test_ten_bad_messages_in_a_row_close(bad: str | bytes) -> None:
    relay = Relay()
    client = relay.client("desktop")
    for _ in range(9):
        client.send(bad)
    assert client.close_code is None
    client.send(bad)
    assert len(codes(client)) == 10
    assert client.close_code == 4400
    assert len(relay.events("msg.invalid")) == 10


def test_a_good_message_starts_the_count_anew() -> None:
    client = Relay().client("desktop")
    for _ in range(5):
        for _ in range(9):
            client.send("{")
        client.send(PING)
    assert client.close_code is None


def test_a_connection_fills_the_audit_log_with_no_more_than_ten_bad_messages() -> None:
    relay = Relay()
    client = relay.client("desktop")
    for _ in range(100):
        client.send("{")
        client.send(PING)
        relay.pass_time(1)
    assert len(relay.events("msg.invalid")) == 10


def test_a_binary_frame_is_an_invalid_message() -> None:
    client = Relay().client("desktop")
    [error] = client.ask(json.dumps(PING).encode())
    assert error["code"] == "INVALID_MESSAGE"
    assert client.ask(PING) == [{"type": "pong", "sequence": 1}]


def test_an_error_reaches_only_its_sender() -> None:
    desktop, mobile = Relay().pair()
    for bad in ("{", '{"type":"channel_closed"}', '{"type":"channel_message","payload":1}', b"x"):
        desktop.send(bad)
    assert len(codes(desktop)) == 4
    assert mobile.received() == []


# Which message an error answers


@pytest.mark.parametrize(
    "refused",
    [
        {"payload": []},
        {"payload": {}, "channel": "pair-999999"},
        {"payload": {"pad": "x" * 70_000}},
        {"type": "gossip"},
    ],
)
def test_an_error_names_the_message_that_it_answers(refused: dict[str, Any]) -> None:
    desktop, _ = Relay().pair()
    [error] = desktop.ask({"type": "channel_message", "id": "m-1", **refused})
    assert (error["type"], error["id"]) == ("error", "m-1")


def test_an_error_about_a_message_without_an_id_has_none() -> None:
    desktop, _ = Relay().pair()
    [error] = desktop.ask({"type": "channel_message", "payload": []})
    assert "id" not in error


@pytest.mark.parametrize("kind", ["frames", "pings", "fragments"])
def test_abuse_below_the_messages_closes_and_is_reported(kind: str) -> None:
    relay = Relay()
    client = relay.client("desktop")
    client.connection.close_for_abuse(kind)
    assert client.close_code == 4429
    assert relay.events("limit.protocol_abuse") == [{"kind": kind}]


def test_a_user_and_an_address_have_room_for_so_many_connections() -> None:
    relay = Relay(connections_per_user=2, connections_per_address=3)
    first = relay.client("desktop", "alice")
    relay.client("mobile", "alice")
    assert relay.hub.reached_limit("alice", "192.0.2.1") == "connections_per_user"
    assert relay.hub.reached_limit("bob", "192.0.2.1") is None
    relay.client("desktop", "bob")
    assert relay.hub.reached_limit("carol", "192.0.2.1") == "connections_per_address"
    assert relay.hub.reached_limit("carol", "192.0.2.2") is None
    relay.hub.remove(first.connection, "Connection closed", relay.now)
    relay.hub.remove(first.connection, "Connection closed", relay.now)
    assert relay.hub.reached_limit("alice", "192.0.2.1") is None


# Time


def test_neither_identified_nor_joined_within_ten_seconds_closes() -> None:
    relay = Relay()
    idle, known = relay.client("desktop"), relay.client("mobile")
    known.identify(Device("mobile-1"))
    relay.hub.check_timeouts(relay.now + 10)
    assert [idle.close_code, known.close_code] == [None, None]
    relay.hub.check_timeouts(relay.now + 10.1)
    assert [idle.close_code, known.close_code] == [4408, None]


def test_pings_do_not_keep_an_unknown_connection_open() -> None:
    relay = Relay()
    client = relay.client("desktop")
    for _ in range(11):
        client.send(PING)
        relay.pass_time(1)
        relay.hub.check_timeouts(relay.now)
    assert client.close_code == 4408


def test_a_token_that_is_about_to_expire_is_announced_once_then_closes_after_a_grace() -> None:
    relay = Relay()
    client = relay.client("desktop", expires_in=100)
    client.identify(Device("desktop-1"))
    start = relay.now
    for second, expected in ((39, []), (40, ["token_expiring"]), (60, []), (129, []), (130, ["error"])):
        relay.hub.check_timeouts(start + second)
        received = client.received()
        assert [m["type"] for m in received] == expected, second
        if second == 40:
            assert received[0]["expires_in"] == 60
        if second == 130:
            assert received[0]["code"] == "INVALID_TOKEN"
            assert client.close_code == 4401
        else:
            assert client.close_code is None


def test_a_refreshed_token_carries_the_connection_on_and_is_announced_in_its_turn() -> None:
    relay = Relay()
    client = relay.client("desktop", expires_in=100)
    client.identify(Device("desktop-1"))
    relay.pass_time(50)
    relay.hub.check_timeouts(relay.now)
    client.received()
    fresh = Identity("alice", "desktop", "new", "login", None, relay.now + 3600, LOGGED_IN)
    client.connection.renew(fresh, relay.now)
    assert client.received() == [{"type": "token_refreshed", "expires_in": 3600}]
    relay.pass_time(3000)
    relay.hub.check_timeouts(relay.now)
    assert client.received() == []
    relay.pass_time(545)
    relay.hub.check_timeouts(relay.now)
    assert client.types() == ["token_expiring"]


def test_a_token_that_is_refreshed_in_the_grace_after_its_expiry_still_carries_on() -> None:
    relay = Relay()
    client = relay.client("desktop", expires_in=100)
    client.identify(Device("desktop-1"))
    relay.pass_time(129)
    relay.hub.check_timeouts(relay.now)
    client.received()
    fresh = Identity("alice", "desktop", "new", "login", None, relay.now + 3600, LOGGED_IN)
    client.connection.renew(fresh, relay.now)
    relay.pass_time(2)
    relay.hub.check_timeouts(relay.now)
    assert client.types() == ["token_refreshed"]
    assert client.close_code is None


# A peer that does not read


def test_the_sender_is_to_pause_while_its_peer_has_too_much_to_read() -> None:
    desktop, mobile = Relay().pair()
    mobile.wire.stalled = True
    big = {"type": "channel_message", "payload": {"a": "x" * 60_000}}
    sent = 0
    while desktop.send(big) is None:
        sent += 1
    assert 3 <= sent <= 4
    assert mobile.connection.send_queue.size >= 256 * 1024
    mobile.wire.stalled = False
    mobile.wire.read()
    assert desktop.send(big) is None
    assert len(mobile.received()) == sent + 2


@pytest.mark.parametrize("how", ["size", "age"])
def test_a_peer_that_does_not_read_is_closed_and_the_sender_gets_peer_slow(how: str) -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    mobile.wire.stalled = True
    count = 20 if how == "size" else 1
    for _ in range(count):
        desktop.send({"type": "channel_message", "payload": {"a": "x" * 60_000}})
    if how == "age":
        relay.pass_time(5.1)
        relay.hub.check_timeouts(relay.now)
    assert mobile.close_code == 4430
    assert json.loads(mobile.wire.carried[-1])["code"] == "SLOW_CONSUMER"
    slow = {"type": "peer_slow", "channel": CHANNEL, "channelId": CHANNEL, "device_type": "mobile"}
    assert desktop.received() == [slow]
    assert desktop.close_code is None
    [reported] = relay.events("limit.slow_consumer")
    assert reported["buffered"] > (1024 * 1024 if how == "size" else 0)  # type: ignore[operator]


# After the decision to close


def test_after_the_decision_to_close_nothing_is_sent_or_decided_again() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    desktop.connection.close(CloseCode.FORBIDDEN, "token of another user")
    desktop.connection.close(CloseCode.INVALID_TOKEN, "again")
    assert desktop.wire.closed == (4403, "token of another user")
    mobile.send({"type": "channel_message", "payload": {}})
    assert desktop.received() == []
    relay.hub.check_timeouts(relay.now + 10_000)
    assert desktop.wire.closed == (4403, "token of another user")


def test_a_socket_that_goes_leaves_its_channel_and_can_no_longer_be_found() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    channel = desktop.connection.channel
    assert relay.hub.remove(desktop.connection, "Connection closed", relay.now) is channel
    [gone] = mobile.received()
    assert (gone["type"], gone["reason"], gone["force_disconnect"]) == (
        "desktop_disconnected",
        "Connection closed",
        False,
    )
    relay.hub.announce_claim(uuid4(), "alice", "desktop-session", CHANNEL)
    assert desktop.received() == []
    assert relay.hub.remove(desktop.connection, "Connection closed", relay.now) is None


def test_only_the_desktop_of_the_code_gets_pairing_claimed() -> None:
    relay = Relay()
    desktop, stranger = relay.client("desktop"), relay.client("desktop", "mallory")
    desktop.identify(Device("desktop-1"))
    stranger.identify(Device("desktop-1"))
    relay.hub.announce_claim(uuid4(), "alice", "desktop-1", CHANNEL)
    assert desktop.received() == [{"type": "pairing_claimed", "channel": CHANNEL, "channelId": CHANNEL}]
    assert stranger.received() == []


def test_a_try_that_the_server_could_not_answer_restarts_the_ten_seconds() -> None:
    relay = Relay()
    client = relay.client("desktop")
    relay.pass_time(9)
    client.connection.refuse(Unavailable(), "{}", relay.now)
    relay.pass_time(9)
    relay.hub.check_timeouts(relay.now)
    assert client.close_code is None
    relay.pass_time(2)
    relay.hub.check_timeouts(relay.now)
    assert client.close_code == 4408
