"""A refusal names the `id` of the message that it refuses, whatever was wrong with it, as far as the `id` can be read."""

from __future__ import annotations

from time import perf_counter

import pytest

from pairing_server.relay.message_id import message_id
from tests.relay.wire import Relay

HALF = "\\ud83d"
DEEP = "[" * 20_000
FAULTS = {
    "half a surrogate pair": f'{{"type":"channel_message","id":"m-1","payload":{{"text":"{HALF}"}}}}',
    "half a pair before the id": f'{{"payload":{{"text":"{HALF}"}},"id":"m-1","type":"channel_message"}}',
    "half a pair in a key": f'{{"payload":{{"{HALF}":1}},"id":"m-1","type":"channel_message"}}',
    "ids within what is broken": f'{{"payload":[{{"id":1}},{{"id":2}},"{HALF}"],"id":"m-1","last":{{"id":3}}}}',
    "cut off": '{"type":"channel_message","id":"m-1","payload":{"a":',
    "not a number": '{"type":"channel_message","payload":{"a":NaN},"id":"m-1"}',
    "a comma too many": '{"type":"channel_message","id":"m-1","payload":{},}',
    "something behind it": '{"type":"channel_message","id":"m-1","payload":{}} and more',
    "quotes and brackets in texts": f'{{"a":"}}]\\"id\\":7,{{[","payload":{HALF},"id":"m-1"}}',
    "nested too deep": f'{{"type":"channel_message","id":"m-1","payload":{{"a":{DEEP}}}}}',
    "nested too deep, whole": f'{{"id":"m-1","payload":{{"a":{"[" * 400}{"]" * 400}}},"type":"channel_message"}}',
    "no type": '{"id":"m-1"}',
    "an unknown type": '{"type":"gossip","id":"m-1"}',
    "a type of the server": '{"type":"ack","id":"m-1"}',
    "a type that is no text": '{"type":[],"id":"m-1"}',
    "the type twice": '{"type":"ping","type":"channel_message","id":"m-1"}',
    "a wrong payload": '{"type":"channel_message","payload":7,"id":"m-1"}',
    "no payload": '{"type":"channel_message","id":"m-1"}',
    "channels that disagree": '{"type":"channel_message","payload":{},"channel":"a","channelId":"b","id":"m-1"}',
    "another channel": '{"type":"channel_message","payload":{},"channel":"pair-999999","id":"m-1"}',
    "settings": '{"type":"settings_sync","settings":[],"id":"m-1"}',
    "sound": '{"type":"audio_chunk","data":5,"id":"m-1"}',
    "a ping": '{"type":"ping","sequence":"one","id":"m-1"}',
    "another device": '{"type":"identify","device_type":"mobile","session_id":"desktop-1","id":"m-1"}',
    "too large": f'{{"type":"channel_message","payload":{{"a":"{"x" * 70_000}"}},"id":"m-1"}}',
    "too large for its type": f'{{"type":"ping","pad":"{"x" * 20_000}","id":"m-1"}}',
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_refusal_names_the_id(fault: str) -> None:
    desktop, _ = Relay().pair()
    [error] = desktop.ask(FAULTS[fault])
    assert (error["type"], error["id"]) == ("error", "m-1")


def test_a_text_in_a_binary_frame_is_refused_by_its_id() -> None:
    desktop, _ = Relay().pair()
    [error] = desktop.ask(b'{"type":"channel_message","id":"m-1","payload":{"a":"\xff"}}')
    assert (error["code"], error["id"]) == ("INVALID_MESSAGE", "m-1")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("7", 7),
        ("-3", -3),
        (str(2**60), 2**60),
        ("1.5", 1.5),
        ('"é\\n"', "é\n"),
        (f'"{HALF}"', "\ud83d"),
        (f'"{"x" * 200}"', "x" * 200),
        ('"a","id":"b"', "b"),
    ],
)
def test_an_id_is_named_as_it_came(text: str, named: object) -> None:
    """Also one that would itself be refused."""
    desktop, _ = Relay().pair()
    [error] = desktop.ask(f'{{"type":"channel_message","id":{text},"payload":{HALF}}}')
    assert error["id"] == named


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '"id"',
        '{"id":null}',
        '{"id":{"id":1}}',
        '{"id":[1]}',
        '{"a":{"id":1}',
        '{"id":"m-1',
        '{"id":tru}',
        "\x00",
    ],
)
def test_what_has_no_id_is_refused_without_one(text: str) -> None:
    assert message_id(text) is None
    desktop, _ = Relay().pair()
    [error] = desktop.ask(text)
    assert "id" not in error


def test_what_a_refusal_costs_is_bounded() -> None:
    """Texts of the largest size, each made to be slow to read. A message of 64 KiB takes 0.05 ms."""
    size = 1024 * 1024
    for text in (
        '{"id":1,' * (size // 8),
        '"' * size,
        "[" * size,
        '{"id":1}' * (size // 8),
        "{" + '\\"' * (size // 2),
    ):
        began = perf_counter()
        message_id(text)
        assert perf_counter() - began < 0.1, text[:20]


def test_a_message_over_the_rate_is_named() -> None:
    desktop, _ = Relay(message_rate=1, message_burst=1).pair()
    ids = [desktop.ask({"type": "channel_message", "payload": {}, "id": f"m-{n}"})[0]["id"] for n in range(2)]
    assert ids == ["m-0", "m-1"]
