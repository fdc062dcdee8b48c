"""What clients' messages may be, which are refused, and by which error."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairing_server.config import Configuration
from pairing_server.errors import (
    InvalidMessage,
    PairingServerError,
    PayloadTooLarge,
    UnknownType,
    ValidationFailed,
)
from pairing_server.relay import messages, requests
from pairing_server.websocket.commands import COMMANDS

LIMITS = Configuration().connection_limits


def take(text: str) -> requests.ClientMessage:
    request = COMMANDS.decode(text)
    command = COMMANDS.by_struct[type(request)]
    command.check_size(text, LIMITS)
    if command.check_content is not None:
        command.check_content(request, LIMITS)
    return request


def field_of(text: str) -> object:
    with pytest.raises(ValidationFailed) as refused:
        take(text)
    return refused.value.details["field"]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "[]", "1", "null", '"ping"', "{}", "ping", "{'type':'ping'}"),
        *('{"TYPE":"ping"}', '{"type":"ping",}', '{"type":"ping"}x', '{"type":"ping"}{"type":"ping"}'),
        "[" * 100_000,
        '{"a":' * 20_000,
        "\ufeff" + '{"type":"ping"}',
        '{"type":"ping","sequence":NaN}',
        '{"type":"ping","sequence":-Infinity}',
        '{"type":"channel_message","payload":{"a":NaN}}',
        '{"type":"channel_message","payload":{"a":01}}',
        '{"type":"channel_message","payload":{"a":"\\ud800"}}',
        '{"type":"channel_message","payload":{"a":"\\x"}}',
        '{"type":"channel_message","payload":{"a":"\x01"}}',
        '{"type":"settings_sync","settings":{"a":NaN}}',
        '{"type":"identify","device_type":"desktop","session_id":"\\udc00session"}',
    ],
    ids=lambda text: repr(text[:60]),
)
def test_what_is_no_json_object_with_a_type_is_an_invalid_message(text: str) -> None:
    with pytest.raises(InvalidMessage):
        COMMANDS.decode(text)


@pytest.mark.parametrize(
    "type_",
    [
        *("connected", "identified", "channel_joined", "client_joined", "pairing_success", "pairing_claimed"),
        *("ack", "audio_gap", "desktop_disconnected", "mobile_disconnected", "channel_closed", "error"),
        *("intruder_refused", "peer_slow", "token_expiring", "token_refreshed", "channel_left"),
        *("nonsense", "Ping", "ping ", "", "__proto__", "ping\\u0000"),
    ],
)
def test_what_clients_do_not_send_is_an_unknown_type(type_: str) -> None:
    with pytest.raises(UnknownType):
        COMMANDS.decode(f'{{"type":"{type_}"}}')


def test_a_type_of_many_lines_is_unknown_and_not_sent_back() -> None:
    with pytest.raises(UnknownType) as refused:
        COMMANDS.decode(json.dumps({"type": "line\n" * 1000}))
    assert len(refused.value.text) < 200


def test_every_type_only_the_server_sends_is_unknown_from_a_client() -> None:
    both = {struct.__struct_config__.tag for struct in COMMANDS.by_struct}
    own = set()
    pending: list[Any] = [messages.ServerMessage]
    while pending:
        struct = pending.pop()
        pending += struct.__subclasses__()
        own.add(struct.__struct_config__.tag)
    assert len(own) > 15
    for tag in own - both - {None}:
        with pytest.raises(UnknownType):
            COMMANDS.decode(json.dumps({"type": tag}))


def test_a_type_given_twice_is_refused_whichever_comes_last() -> None:
    assert field_of('{"type":"ping","type":"pong"}') == "type"
    with pytest.raises(UnknownType):
        COMMANDS.decode('{"type":"ping","type":"channel_closed"}')
    with pytest.raises(PairingServerError):
        COMMANDS.decode('{"type":"channel_closed","type":"ping"}')


@pytest.mark.parametrize("value", ["1", "null", "true", '["ping"]', "{}"])
def test_a_type_that_is_no_string_is_named(value: str) -> None:
    assert field_of(f'{{"type":{value}}}') == "type"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"type":"ping","sequence":1.5}', "sequence"),
        ('{"type":"ping","sequence":"1"}', "sequence"),
        ('{"type":"ping","sequence":true}', "sequence"),
        ('{"type":"ping","sequence":1e999}', "sequence"),
        ('{"type":"ping","sequence":9007199254740993}', "sequence"),
        ('{"type":"ping","sequence":' + "9" * 5000 + "}", "sequence"),
        ('{"type":"identify","session_id":"desktop-1"}', "device_type"),
        ('{"type":"identify","device_type":"desktop"}', "session_id"),
        ('{"type":"identify","device_type":"tablet","session_id":"desktop-1"}', "device_type"),
        ('{"type":"identify","device_type":"desktop","session_id":"short"}', "session_id"),
        ('{"type":"identify","device_type":"desktop","session_id":"' + "s" * 129 + '"}', "session_id"),
        ('{"type":"identify","device_type":"desktop","session_id":"desktop-1\\n"}', "session_id"),
        ('{"type":"identify","device_type":"desktop","session_id":"desktop\\u0000-1"}', "session_id"),
        ('{"type":"identify","device_type":"desktop","session_id":"desktop-é"}', "session_id"),
        ('{"type":"join_channel","channel":5}', "channel"),
        ('{"type":"join_channel","channel":"pair-1","last_seq":-1}', "last_seq"),
        ('{"type":"channel_message"}', "payload"),
        ('{"type":"channel_message","payload":{},"id":[]}', "id"),
        ('{"type":"channel_message","payload":{},"id":1.5}', "id"),
        ('{"type":"settings_sync"}', "settings"),
        ('{"type":"settings_sync","settings":[]}', "settings"),
        ('{"type":"settings_sync","settings":{"":1}}', "settings"),
        ('{"type":"settings_sync","settings":{"' + "k" * 129 + '":1}}', "settings"),
        ('{"type":"audio_chunk"}', "data"),
        ('{"type":"audio_chunk","data":5}', "data"),
        ('{"type":"audio_chunk","data":"AAAA","sample_rate":-1}', "sample_rate"),
        ('{"type":"refresh_token"}', "token"),
    ],
    ids=lambda text: repr(text[:60]),
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(text: str, field: str) -> None:
    assert field_of(text) == field


def test_unknown_fields_are_ignored_even_those_with_dangerous_names() -> None:
    assert take('{"type":"ping","sequence":7,"__proto__":{"a":1},"constructor":null}') == requests.Ping(7)


def test_a_payload_is_kept_as_it_came() -> None:
    payload = '{"b" : [1, 2.50, "\\u0000\\u00e9é"],\n "a":1e5, "a": 2, "__proto__": {"x": null}}'
    request = take(f'{{"type":"channel_message","payload":{payload}}}')
    assert isinstance(request, requests.ChannelMessage)
    assert bytes(request.payload).decode() == payload


@pytest.mark.parametrize("name", ["channel", "channelId", "channel_id"])
def test_a_channel_goes_by_any_of_three_names(name: str) -> None:
    request = take(json.dumps({"type": "leave_channel", name: "pair-123456"}))
    assert isinstance(request, requests.LeaveChannel)
    assert request.channel_named == "pair-123456"


def test_names_that_agree_are_one_and_names_that_disagree_are_refused() -> None:
    same = requests.LeaveChannel(channel="pair-123456", channelId="pair-123456")
    assert same.channel_named == "pair-123456"
    with pytest.raises(ValidationFailed) as refused:
        _ = requests.LeaveChannel(channelId="pair-123456", channel_id="pair-654321").channel_named
    assert refused.value.details == {"field": "channel"}


def test_audio_goes_by_either_name() -> None:
    for name in ("data", "audio_data"):
        request = take(json.dumps({"type": "audio_chunk", name: "AAAA"}))
        assert isinstance(request, requests.AudioChunk)
        assert bytes(request.as_json()) == b'"AAAA"'


def sized(kind: str, size: int) -> str:
    """A valid message of exactly that many bytes."""
    forms = {
        "channel_message": '{"type":"channel_message","payload":{"a":"%s"}}',
        "audio_chunk": '{"type":"audio_chunk","data":"%s"}',
        "settings_sync": '{"type":"settings_sync","settings":{"a":"%s"}}',
        "ping": '{"type":"ping","pad":"%s"}',
    }
    return forms[kind] % ("x" * (size - len(forms[kind]) + 2))


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("channel_message", 64 * 1024),
        ("audio_chunk", 512 * 1024),
        ("settings_sync", 16 * 1024),
        ("ping", 16 * 1024),
    ],
)
def test_a_message_may_be_as_large_as_its_kind_allows_and_not_a_byte_more(kind: str, limit: int) -> None:
    take(sized(kind, limit))
    with pytest.raises(PayloadTooLarge) as refused:
        take(sized(kind, limit + 1))
    assert refused.value.details == {"limit": limit, "size": limit + 1}


def test_what_is_too_large_for_its_type_is_refused_before_anything_is_built_from_it() -> None:
    keys = ",".join(f'"{number:x}":1' for number in range(50_000))
    for text in (
        f'{{"type":"settings_sync","settings":{{{keys}}}}}',
        f'{{"settings":{{{keys}}},"type":"settings_sync"}}',
        f'{{"type":"settings_sync","settings":{{{keys}}},"type":"audio_chunk"}}',
    ):
        before = sys.getallocatedblocks()
        with pytest.raises(PayloadTooLarge) as refused:
            COMMANDS.decode_large(text, LIMITS)
        assert sys.getallocatedblocks() - before < 10_000
        assert refused.value.details == {"limit": LIMITS.control_size, "size": len(text)}


def test_a_large_frame_is_decoded_as_a_small_one_if_its_type_may_be_large() -> None:
    long = "x" * LIMITS.control_size
    for text in (
        f'{{"type":"channel_message","channel":"pair-123456","payload":{{"a":"{long}"}},"id":7}}',
        f'{{"type":"audio_chunk","data":"{long}","chunk_id":"c"}}',
    ):
        assert COMMANDS.decode_large(text, LIMITS) == COMMANDS.decode(text)
    for text in (
        f'{{"type":"nonsense","x":"{long}"}}',
        f'{{"type":7,"x":"{long}"}}',
        f'{{"x":"{long}"}}',
        long,
    ):
        with pytest.raises(PairingServerError) as small:
            COMMANDS.decode(text)
        with pytest.raises(type(small.value)):
            COMMANDS.decode_large(text, LIMITS)


def test_sizes_count_bytes_not_characters() -> None:
    text = json.dumps({"type": "ping", "pad": "é" * 9000}, ensure_ascii=False)
    assert len(text) < 16 * 1024
    with pytest.raises(PayloadTooLarge) as refused:
        take(text)
    assert refused.value.details["size"] == len(text.encode())


@pytest.mark.parametrize(("depth", "fine"), [(16, True), (17, False)])
def test_settings_nest_sixteen_deep_at_most_themselves_counted(depth: int, fine: bool) -> None:
    value = "[" * (depth - 1) + "]" * (depth - 1)
    text = f'{{"type":"settings_sync","settings":{{"a":{value}}}}}'
    if fine:
        take(text)
    else:
        assert field_of(text) == "settings"


@pytest.mark.parametrize(("keys", "fine"), [(64, True), (65, False)])
def test_settings_have_sixty_four_keys_at_most(keys: int, fine: bool) -> None:
    text = json.dumps({"type": "settings_sync", "settings": {f"k{i}": i for i in range(keys)}})
    if fine:
        take(text)
    else:
        assert field_of(text) == "settings"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["ping", "identify", "join_channel", "channel_message", "settings_sync", "audio_chunk"]),
    st.dictionaries(
        st.sampled_from(
            ["sequence", "device_type", "session_id", "channel", "payload", "settings", "data", "id"]
        ),
        JSON,
    ),
)
def test_any_json_is_taken_or_refused_by_an_error_of_ours(type_: str, fields: dict[str, object]) -> None:
    text = json.dumps({**fields, "type": type_})
    try:
        request = take(text)
    except (InvalidMessage, ValidationFailed) as error:
        assert json.loads(messages.encode(messages.error_message(error)))["code"] == error.code
    else:
        assert request.__struct_config__.tag == type_


@given(st.text())
def test_any_text_is_taken_or_refused_by_an_error_of_ours(text: str) -> None:
    try:
        take(text)
    except (InvalidMessage, ValidationFailed, UnknownType) as error:
        assert error.text
