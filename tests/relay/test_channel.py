"""One channel: which messages each member gets when members join, send and leave, and when the channel ends."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from pairing_server.errors import InvalidChannel
from tests.relay.wire import Client, Relay, sync

CHANNEL = "pair-123456"
NAMED = {"channel": CHANNEL, "channelId": CHANNEL}


def say(client: Client, payload: Any = None, **fields: Any) -> None:
    client.send({"type": "channel_message", "payload": payload or {}, **fields})


def test_channel_joined_describes_the_channel() -> None:
    relay = Relay()
    channel = relay.channel()
    desktop = relay.client("desktop")
    desktop.join(channel)
    [joined] = desktop.received()
    assert joined == {
        "type": "channel_joined",
        **NAMED,
        "devices": ["desktop"],
        "settings": {},
        "rev": 0,
        "epoch": channel.epoch,
        "seq": 0,
        "last_seq": 0,
        "recovered": False,
    }


@pytest.mark.parametrize("order", [("desktop", "mobile"), ("mobile", "desktop")])
def test_both_get_pairing_success_once_in_either_order(order: tuple[str, str]) -> None:
    relay = Relay()
    channel = relay.channel()
    first, second = (relay.client(role) for role in order)
    first.join(channel)
    assert first.types() == ["channel_joined"]
    second.join(channel)
    success = {
        "type": "pairing_success",
        **NAMED,
        "code": "123456",
        "message": "Devices paired successfully",
        "devices": ["desktop", "mobile"],
    }
    joined, celebrated = first.received()
    assert joined == {
        "type": "client_joined",
        **NAMED,
        "client_id": f"{order[1]}-session",
        "device_type": order[1],
    }
    assert celebrated == success
    own, celebrated = second.received()
    assert own["devices"] == ["desktop", "mobile"]
    assert celebrated == success


def test_joining_again_on_the_same_connection_notifies_only_the_joiner() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    assert mobile.connection.channel is not None
    mobile.join(mobile.connection.channel)
    assert mobile.types() == ["channel_joined"]
    assert desktop.types() == []


def test_an_activation_that_ended_is_celebrated_anew() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    channel = desktop.connection.channel
    assert channel is not None
    mobile.send({"type": "leave_channel"})
    assert desktop.types() == ["mobile_disconnected"]
    mobile.join(channel)
    assert desktop.types() == ["client_joined", "pairing_success"]
    assert mobile.types() == ["channel_left", "channel_joined", "pairing_success"]


def test_the_same_device_on_a_new_connection_takes_over_without_a_disconnect_for_the_peer() -> None:
    relay = Relay()
    desktop, old = relay.pair()
    channel = desktop.connection.channel
    assert channel is not None
    new = relay.client("mobile")
    new.join(channel)
    [error] = old.received()
    assert (error["code"], old.close_code) == ("SESSION_REPLACED", 4409)
    assert desktop.types() == ["client_joined"]
    relay.hub.remove(old.connection, "Connection closed", relay.now)
    assert desktop.types() == []
    say(new, {"a": 1})
    assert desktop.types() == ["channel_message"]
    assert [e.pairing_id for e in relay.reported if e.name == "channel.replaced"] == [channel.pairing_id]


def test_messages_of_both_members_are_numbered_in_one_sequence() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    say(desktop)
    say(mobile)
    sync(desktop, gain=1)
    say(desktop)
    assert [m["seq"] for m in mobile.received()] == [1, 3, 4]
    assert [m["seq"] for m in desktop.received()] == [2]
    again = relay.client("mobile")
    again.join(desktop.connection.channel)  # type: ignore[arg-type]
    assert again.received()[0]["seq"] == 4


def test_a_message_with_an_id_is_acknowledged_with_its_number() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    for given in ("m-1", 7):
        say(desktop, {"a": 1}, id=given)
        [relayed] = mobile.received()
        assert relayed["id"] == given
        assert desktop.received() == [{"type": "ack", "id": given, "seq": relayed["seq"]}]
    say(desktop, {"a": 1})
    assert desktop.received() == []
    assert "id" not in mobile.received()[0]


def test_a_message_to_a_peer_that_is_away_is_acknowledged_and_numbered_all_the_same() -> None:
    relay = Relay()
    desktop = relay.client("desktop")
    desktop.join(relay.channel())
    desktop.received()
    say(desktop, {"a": 1}, id="m-1")
    assert desktop.received() == [{"type": "ack", "id": "m-1", "seq": 1}]


def test_a_payload_reaches_the_peer_byte_for_byte() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    payload = '{"b" : [1, 2.50],\n "\\u00e9": "é\\u0000",  "a":1e5, "type": "error"}'
    desktop.send(f'{{"type":"channel_message","payload":{payload}}}')
    assert payload.encode() in mobile.wire.carried[0]


def test_nothing_but_the_known_fields_reaches_the_peer() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    stowaway = {"secret": 1, "code": "X", "seq": 99, "from": "root", "__proto__": {"x": 1}}
    say(desktop, {"a": 1}, **stowaway)
    [relayed] = mobile.received()
    assert relayed == {"type": "channel_message", **NAMED, "payload": {"a": 1}, "seq": 1}
    desktop.send({"type": "settings_sync", "settings": {"gain": 1}, **stowaway, "rev": 9, "changed": ["x"]})
    [document] = mobile.received()
    assert document == {
        "type": "settings_sync",
        **NAMED,
        "settings": {"gain": 1},
        "changed": ["gain"],
        "rev": 1,
        "seq": 2,
    }
    desktop.send({"type": "audio_chunk", "data": "AAAA", **stowaway})
    assert mobile.received() == [{"type": "audio_chunk", **NAMED, "data": "AAAA", "audio_seq": 1}]


@pytest.mark.parametrize("sender", ["desktop", "mobile"])
def test_audio_goes_either_way_by_either_name_numbered_apart(sender: str) -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    speaker, hearer = (desktop, mobile) if sender == "desktop" else (mobile, desktop)
    say(speaker)
    speaker.send(
        {"type": "audio_chunk", "chunk_id": "c-1", "data": "AAAA", "format": "webm", "sample_rate": 16000}
    )
    speaker.send({"type": "audio_chunk", "chunk_id": 2, "audio_data": "BBBB"})
    _, first, second = hearer.received()
    assert first == {
        "type": "audio_chunk",
        **NAMED,
        "chunk_id": "c-1",
        "data": "AAAA",
        "format": "webm",
        "sample_rate": 16000,
        "audio_seq": 1,
    }
    assert (second["data"], second["chunk_id"], second["audio_seq"]) == ("BBBB", 2, 2)
    hearer.send({"type": "audio_chunk", "data": "CCCC"})
    assert speaker.received()[0]["audio_seq"] == 1
    say(hearer)
    assert speaker.received()[0]["seq"] == 2


def test_audio_without_a_receiver_is_dropped_and_uses_up_its_number() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    mobile.send({"type": "leave_channel"})
    desktop.received()
    desktop.send({"type": "audio_chunk", "data": "AAAA"})
    assert desktop.received() == []
    mobile.join(desktop.connection.channel)  # type: ignore[arg-type]
    mobile.received()
    desktop.received()
    desktop.send({"type": "audio_chunk", "data": "BBBB"})
    [chunk] = mobile.received()
    assert (chunk["data"], chunk["audio_seq"]) == ("BBBB", 2)


def test_dropped_audio_is_announced_to_the_receiver() -> None:
    relay = Relay(in_flight=100, queue_pause=2000, audio_rate=1000)
    desktop, mobile = relay.pair()
    mobile.wire.stalled = True
    for number in range(20):
        desktop.send({"type": "audio_chunk", "chunk_id": number, "data": "A" * 300})
    mobile.wire.stalled = False
    mobile.wire.read()
    received = mobile.received()
    lost = {n for m in received if m["type"] == "audio_gap" for n in range(m["from"], m["to"] + 1)}
    heard = {m["audio_seq"] for m in received if m["type"] == "audio_chunk"}
    assert lost
    assert lost | heard == set(range(1, 21))
    assert not lost & heard
    assert {m["reason"] for m in received if m["type"] == "audio_gap"} == {"slow_consumer"}
    assert relay.hub.context.counters.audio_dropped == len(lost)


@pytest.mark.parametrize("role", ["desktop", "mobile"])
def test_a_member_that_leaves_is_announced_as_one_that_may_come_back(role: str) -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    leaver, other = (desktop, mobile) if role == "desktop" else (mobile, desktop)
    leaver.send({"type": "leave_channel", "channel": CHANNEL})
    assert leaver.received() == [{"type": "channel_left", **NAMED}]
    assert other.received() == [
        {
            "type": f"{role}_disconnected",
            **NAMED,
            "reason": "Left the channel",
            "force_disconnect": False,
            "client_id": f"{role}-session",
            "device_type": role,
        }
    ]


def test_the_end_of_a_channel_names_the_devices_gone_for_good_then_closes_all() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    channel = desktop.connection.channel
    assert channel is not None
    relay.hub.end_channel(channel.pairing_id, "unpaired", {"mobile": "mobile-session"})
    gone, closed = desktop.received()
    assert (gone["type"], gone["force_disconnect"], gone["client_id"]) == (
        "mobile_disconnected",
        True,
        "mobile-session",
    )
    assert closed == {"type": "channel_closed", **NAMED, "reason": "unpaired"}
    assert mobile.types() == ["channel_closed"]
    assert (desktop.close_code, mobile.close_code) == (4410, 4410)
    assert relay.hub.channels == {}


def test_a_pairing_that_has_ended_is_not_revived_by_a_late_join_and_forgotten_after_a_minute() -> None:
    relay = Relay()
    pairing_id = relay.channel().pairing_id
    relay.hub.end_channel(pairing_id, "unpaired", {})
    relay.hub.check_timeouts(relay.now + 60)
    with pytest.raises(InvalidChannel):
        relay.hub.open_channel(pairing_id, CHANNEL, relay.now + 60)
    relay.hub.check_timeouts(relay.now + 60.1)
    assert relay.hub.open_channel(pairing_id, CHANNEL, relay.now + 60.1).name == CHANNEL


def test_an_unused_code_leaves_the_connection_open_for_the_next() -> None:
    relay = Relay()
    channel = relay.channel()
    desktop = relay.client("desktop")
    desktop.join(channel)
    desktop.received()
    relay.hub.cancel_channel(channel.pairing_id, "expired")
    [error] = desktop.received()
    assert (error["code"], error["details"]) == ("INVALID_CHANNEL", {"channel": CHANNEL, "reason": "expired"})
    assert desktop.close_code is None
    desktop.join(relay.channel("pair-654321"))
    assert desktop.received()[0]["channel"] == "pair-654321"


def test_members_get_intruder_refused() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    assert desktop.connection.channel is not None
    desktop.connection.channel.announce_intruder("mobile", relay.now)
    told = {"type": "intruder_refused", **NAMED, "device_type": "mobile", "current_devices": 2}
    assert desktop.received() == mobile.received() == [told]


def test_intruder_refused_is_limited() -> None:
    relay = Relay()
    desktop, _ = relay.pair()
    assert desktop.connection.channel is not None
    for _ in range(100):
        desktop.connection.channel.announce_intruder("mobile", relay.now)
    assert len(desktop.received()) == 5


def test_the_past_is_kept_up_to_256_messages_or_a_mebibyte_and_without_audio() -> None:
    relay = Relay(message_rate=10_000, message_burst=10_000)
    desktop, mobile = relay.pair()
    channel = desktop.connection.channel
    assert channel is not None
    for number in range(300):
        say(desktop, {"n": number})
    desktop.send({"type": "audio_chunk", "data": "AAAA"})
    assert [seq for seq, _ in channel.history.after(0, "mobile")] == list(range(45, 301))
    for _ in range(20):
        say(mobile, {"long": "x" * 60_000})
    assert channel.history.size <= 1024 * 1024
    assert channel.history.after(0, "desktop")[-1][0] == 320


def test_no_message_reaches_another_channel_whatever_is_sent() -> None:
    relay = Relay(message_rate=10_000, message_burst=10_000, audio_rate=10_000)
    draw = random.Random(5)
    pairs = [relay.pair(f"pair-{number:06d}") for number in range(30)]
    for number in range(1500):
        pair = draw.randrange(30)
        speaker = draw.choice(pairs[pair])
        other = f"pair-{draw.randrange(30):06d}"
        tag = f"tag-{pair}-{number}"
        sent: list[dict[str, Any]] = [
            {"type": "channel_message", "payload": {"tag": tag}, "channel": f"pair-{pair:06d}"},
            {"type": "channel_message", "payload": {"tag": tag}, "channelId": other},
            {"type": "settings_sync", "settings": {"tag": tag}, "channel_id": other},
            {"type": "settings_sync", "settings": {"tag": tag}},
            {"type": "audio_chunk", "data": tag},
            {"type": "audio_chunk", "data": tag, "channel": other},
        ]
        speaker.send(draw.choice(sent))
    delivered = 0
    for pair, members in enumerate(pairs):
        for member in members:
            for message in member.received():
                text = json.dumps(message)
                assert text.count("tag-") == text.count(f"tag-{pair}-")
                assert message.get("channel", f"pair-{pair:06d}") in (
                    f"pair-{pair:06d}",
                    message.get("details", {}).get("channel"),
                )
                delivered += "tag-" in text
    assert delivered > 500
    assert relay.events("channel.denied")


def test_only_channels_somebody_is_missing_from_too_long_are_overdue() -> None:
    relay = Relay(reconnect_grace=300)
    desktop, mobile = relay.pair("pair-000001")
    alone = relay.client("desktop")
    alone.join(relay.channel("pair-000002"))
    relay.pass_time(1000)
    assert relay.hub.overdue_channels(relay.now) == []
    mobile.send({"type": "leave_channel"})
    assert relay.hub.overdue_channels(relay.now + 300) == []
    assert relay.hub.overdue_channels(relay.now + 301) == [desktop.connection.channel]
    relay.pass_time(200)
    channel = desktop.connection.channel
    desktop.send({"type": "leave_channel"})
    assert relay.hub.overdue_channels(relay.now + 299) == []
    assert relay.hub.overdue_channels(relay.now + 301) == [channel]


def test_the_error_of_a_cancelled_channel_names_the_reason() -> None:
    relay = Relay()
    channel = relay.channel()
    desktop = relay.client("desktop")
    desktop.join(channel)
    channel.cancel(InvalidChannel(channel=channel.name, reason="superseded"))
    assert desktop.received()[-1]["details"]["reason"] == "superseded"


def test_a_channel_that_has_moved_replaces_who_is_there_and_sends_the_other_after_it() -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    channel = desktop.connection.channel
    assert channel is not None
    for member in (desktop, mobile):
        member.connection.uses_additions = True
    relay.hub.move_channel(channel.pairing_id, {"mobile"})
    assert relay.hub.channels == {}
    assert (desktop.received(), desktop.close_code) == ([], 1012)
    [replaced] = mobile.received()
    assert (replaced["code"], mobile.close_code) == ("SESSION_REPLACED", 4409)
    # A device that comes back finds no old state here.
    again = relay.hub.open_channel(channel.pairing_id, channel.name, relay.now)
    assert again is not channel
