"""What members say to each other over real sockets: relayed as it came, and nothing else of what was sent."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.devices import Device, Site

pytestmark = pytest.mark.one_node


async def exchange(sender: Device, receiver: Device, message: dict[str, Any] | str) -> list[dict[str, Any]]:
    """What the receiver gets when the sender sends that."""
    sender.socket.send(message)
    await sender.socket.pending()
    return await receiver.socket.pending()


async def refusal(device: Device, message: dict[str, Any] | str) -> dict[str, Any]:
    device.socket.send(message)
    return await device.socket.error()


async def test_a_payload_goes_either_way_byte_for_byte(site: Site) -> None:
    desktop, mobile = await site.pair()
    payload = '{"b" : [1, 2.50, 1e5],\n\t"\\u00e9": "é\\u0000</script>",  "a": 2, "type": "error"}'
    for number, (sender, receiver) in enumerate(((desktop, mobile), (mobile, desktop)), 1):
        sender.socket.send(
            f'{{"type":"channel_message", "channelId":"{sender.channel}", "payload":{payload}, "id":"m-1"}}'
        )
        assert await sender.socket.expect("ack") == {"type": "ack", "id": "m-1", "seq": number}
        text = await receiver.socket.connection.read_message()
        assert isinstance(text, str)
        assert f'"payload":{payload}' in text
        assert json.loads(text)["seq"] == number


async def test_only_what_the_protocol_names_reaches_the_peer(site: Site) -> None:
    desktop, mobile = await site.pair()
    stowaway = {"from": "root", "seq": 99, "rev": 99, "code": "X", "token": "secret", "__proto__": {"x": 1}}
    named = {"channel": desktop.channel, "channelId": desktop.channel}
    assert await exchange(desktop, mobile, {"type": "channel_message", "payload": {"a": 1}, **stowaway}) == [
        {"type": "channel_message", **named, "payload": {"a": 1}, "seq": 1}
    ]
    [document] = await exchange(desktop, mobile, {"type": "settings_sync", "settings": {"g": 1}, **stowaway})
    assert document == {
        "type": "settings_sync",
        **named,
        "settings": {"g": 1},
        "changed": ["g"],
        "rev": 1,
        "seq": 2,
    }
    assert await exchange(desktop, mobile, {"type": "audio_chunk", "audio_data": "AAAA", **stowaway}) == [
        {"type": "audio_chunk", **named, "data": "AAAA", "audio_seq": 1}
    ]


async def test_types_that_only_the_server_sends_and_unknown_ones_never_reach_the_peer(site: Site) -> None:
    desktop, mobile = await site.pair()
    types = ["pairing_success", "channel_closed", "mobile_disconnected", "error", "ack", "nonsense"]
    for type_ in types:
        error = await refusal(
            desktop, {"type": type_, "channel": desktop.channel, "channelId": desktop.channel, "payload": {}}
        )
        assert (error["code"], error["retryable"]) == ("UNKNOWN_TYPE", False)
    for twice in (
        '{"type":"channel_message","type":"channel_closed","payload":{}}',
        '{"type":"channel_closed","type":"channel_message","payload":{}}',
    ):
        assert (await refusal(desktop, twice))["code"] in ("VALIDATION_ERROR", "UNKNOWN_TYPE")
    assert await mobile.socket.pending() == []


async def test_an_error_has_a_code_a_message_details_and_says_whether_to_try_again(site: Site) -> None:
    desktop, _ = await site.pair()
    for message, code, details in (
        ({"type": "channel_message", "payload": 1}, "VALIDATION_ERROR", {"field": "payload"}),
        ({"type": "ping", "sequence": "1"}, "VALIDATION_ERROR", {"field": "sequence"}),
        ({"type": "nonsense"}, "UNKNOWN_TYPE", {}),
        ("{", "INVALID_MESSAGE", {}),
        (
            {"type": "settings_sync", "channel": "pair-000000", "settings": {}},
            "INVALID_CHANNEL",
            {"channel": "pair-000000"},
        ),
        (
            {"type": "channel_message", "payload": {"a": "x" * 70_000}},
            "PAYLOAD_TOO_LARGE",
            {"limit": 65536, "size": 70_049},
        ),
    ):
        error = await refusal(desktop, message)
        assert set(error) == {"type", "code", "message", "details", "retryable"}
        assert (error["code"], error["details"], error["retryable"]) == (code, details, False)
        assert error["message"]
    invalid = await site.events("msg.invalid")
    assert [event["rule"] for event in invalid] == [
        "VALIDATION_ERROR",
        "VALIDATION_ERROR",
        "UNKNOWN_TYPE",
        "INVALID_MESSAGE",
    ]
    assert {event["outcome"] for event in invalid} == {"failure"}
    [large] = await site.events("msg.too_large")
    assert (large["limit"], large["size"], large["outcome"]) == (65536, 70_049, "denied")
    [denied] = await site.events("channel.denied")
    assert denied["reason"] == "foreign"


async def test_settings_reach_the_other_whole_and_their_echo_goes_no_further(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    desktop.socket.send({"type": "settings_sync", "channelId": desktop.channel, "settings": {"a": 1, "b": 2}})
    document = await mobile.socket.expect("settings_sync")
    assert (document["settings"], document["changed"], document["rev"]) == ({"a": 1, "b": 2}, ["a", "b"], 1)
    mobile.socket.send({"type": "settings_sync", "settings": document["settings"]})
    await mobile.socket.pending()
    assert await desktop.socket.pending() == []
    late = await site.connect(account, "mobile")
    late.send({"type": "join_channel", "channel": mobile.channel, "session_id": mobile.session_id})
    joined = await late.expect("channel_joined")
    assert (joined["settings"], joined["rev"], joined["seq"]) == ({"a": 1, "b": 2}, 1, 1)
    assert (await late.expect("settings_sync"))["settings"] == {"a": 1, "b": 2}


async def test_a_ping_is_answered_with_its_sequence_and_a_clients_pong_with_nothing(site: Site) -> None:
    desktop, mobile = await site.pair()
    desktop.socket.send({"type": "ping", "sequence": 12345})
    assert await desktop.socket.receive() == {"type": "pong", "sequence": 12345}
    desktop.socket.send({"type": "pong", "sequence": 12345})
    assert await desktop.socket.pending() == []
    assert await mobile.socket.pending() == []


async def test_no_message_crosses_from_one_channel_to_another(site: Site) -> None:
    account, draw, pairs = await site.account(), random.Random(11), 30
    members = [await site.pair(account) for _ in range(pairs)]
    channels = [desktop.channel for desktop, _ in members]
    expected: dict[str, list[str]] = {}
    for number in range(20 * pairs):
        pair, role = draw.randrange(pairs), draw.randrange(2)
        speaker, hearer = members[pair][role], members[pair][1 - role]
        named = draw.choice([channels[pair], channels[pair], draw.choice(channels)])
        tag = f"tag-{pair}-{number}"
        sent: list[dict[str, Any]] = [
            {"type": "channel_message", "channelId": named, "payload": {"tag": tag}},
            {"type": "audio_chunk", "channel": named, "data": tag},
        ]
        speaker.socket.send(draw.choice(sent))
        if named == channels[pair]:
            expected.setdefault(hearer.session_id, []).append(tag)
    devices = [device for pair in members for device in pair]
    heard: dict[str, list[str]] = {}
    # Once for what each has sent to be dealt with, once more for what has come of it.
    for device in devices * 2:
        heard.setdefault(device.session_id, []).extend(await listen(device))
    assert {session_id: tags for session_id, tags in heard.items() if tags} == expected


async def listen(device: Device) -> list[str]:
    """The tags of all that was relayed to the device up to now."""
    relayed = [m for m in await device.socket.pending() if m["type"] in ("channel_message", "audio_chunk")]
    assert {message["channel"] for message in relayed} <= {device.channel}
    return [message["payload"]["tag"] if "payload" in message else message["data"] for message in relayed]
