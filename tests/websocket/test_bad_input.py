"""Whatever comes through the socket: the right error, the connection kept, and no traceback."""

from __future__ import annotations

import json
import logging

import pytest

from tests.devices import Site
from tests.websocket.raw import BINARY, CLOSE, PING, TEXT, RawSocket, frame

pytestmark = pytest.mark.one_node

BAD: tuple[tuple[str | bytes, str], ...] = (
    ("", "INVALID_MESSAGE"),
    (" ", "INVALID_MESSAGE"),
    ("hello", "INVALID_MESSAGE"),
    ("{", "INVALID_MESSAGE"),
    ("[]", "INVALID_MESSAGE"),
    ("null", "INVALID_MESSAGE"),
    ("{}", "INVALID_MESSAGE"),
    ("[" * 100_000, "INVALID_MESSAGE"),
    ('{"a":' * 50_000, "INVALID_MESSAGE"),
    ('{"type":"ping","a":' + "[" * 2_000 + "]" * 2_000 + "}", "INVALID_MESSAGE"),
    ('{"type":"ping","a":' + "[" * 100_000 + "]" * 100_000 + "}", "PAYLOAD_TOO_LARGE"),
    ("\ufeff" + '{"type":"ping"}', "INVALID_MESSAGE"),
    ('{"type":"ping"}{"type":"ping"}', "INVALID_MESSAGE"),
    ('{"type":"ping","sequence":NaN}', "INVALID_MESSAGE"),
    ('{"type":"channel_message","payload":{"a":Infinity}}', "INVALID_MESSAGE"),
    ('{"type":"channel_message","payload":{"a":"\\ud800"}}', "INVALID_MESSAGE"),
    ('{"type":"settings_sync","settings":{"\\udfff":1}}', "INVALID_MESSAGE"),
    (b'{"type":"ping"}', "INVALID_MESSAGE"),
    (b"\x00\xff\xfe", "INVALID_MESSAGE"),
    ('{"type":"ping","sequence":' + "9" * 5000 + "}", "VALIDATION_ERROR"),
    ('{"type":"ping","sequence":1e400}', "VALIDATION_ERROR"),
    ('{"type":"ping","sequence":{}}', "VALIDATION_ERROR"),
    ('{"type":"ping","type":"pong"}', "VALIDATION_ERROR"),
    ('{"type":["ping"]}', "VALIDATION_ERROR"),
    ('{"type":"identify","device_type":"mobile","session_id":"mobile\\u0000-1"}', "VALIDATION_ERROR"),
    ('{"type":"identify","device_type":"mobile","session_id":["mobile-1"]}', "VALIDATION_ERROR"),
    ('{"type":"join_channel","channel":{"$ne":null},"session_id":"mobile-1"}', "VALIDATION_ERROR"),
    ('{"type":"channel_message","payload":"text"}', "VALIDATION_ERROR"),
    ('{"type":"channel_message","payload":' + '{"a":' * 17 + "1" + "}" * 18, "VALIDATION_ERROR"),
    ('{"type":"settings_sync","settings":{"a":' + "[" * 16 + "]" * 16 + "}}", "VALIDATION_ERROR"),
    ('{"type":"settings_sync","settings":[]}', "VALIDATION_ERROR"),
    ('{"type":"audio_chunk","data":null}', "VALIDATION_ERROR"),
    ('{"type":"__proto__"}', "UNKNOWN_TYPE"),
    ('{"type":"toString"}', "UNKNOWN_TYPE"),
    ('{"type":"ping\\u0000"}', "UNKNOWN_TYPE"),
    ('{"type":"' + "x" * 100_000 + '"}', "UNKNOWN_TYPE"),
    ("\x00", "INVALID_MESSAGE"),
    ('{"type":"ping"}\x00', "INVALID_MESSAGE"),
    ('"ping"', "INVALID_MESSAGE"),
    ("{'type':'ping'}", "INVALID_MESSAGE"),
    ('{"type":"ping",}', "INVALID_MESSAGE"),
    ('{"type":"ping","sequence":01}', "INVALID_MESSAGE"),
    ('{"type":"ping","a":"\t"}', "INVALID_MESSAGE"),
    ('{"type":"settings_sync","settings":{"a":-Infinity}}', "INVALID_MESSAGE"),
    ('{"__proto__":{"type":"ping"}}', "INVALID_MESSAGE"),
    ('{"type":null}', "VALIDATION_ERROR"),
    ('{"type":"ping","sequence":true}', "VALIDATION_ERROR"),
    ('{"type":"ping","sequence":-9223372036854775809}', "VALIDATION_ERROR"),
    ('{"type":"channel_message"}', "VALIDATION_ERROR"),
    ('{"type":"channel_message","payload":{},"id":{"a":1}}', "VALIDATION_ERROR"),
    ('{"type":"channel_message","payload":{},"id":"' + "x" * 5000 + '"}', "VALIDATION_ERROR"),
    ('{"type":"settings_sync","settings":{"' + "k" * 5000 + '":1}}', "VALIDATION_ERROR"),
    ('{"type":"audio_chunk","data":"AAAA","sample_rate":"x"}', "VALIDATION_ERROR"),
    ('{"type":"PING"}', "UNKNOWN_TYPE"),
)


async def test_bad_input_gets_its_error_and_the_connection_stays(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    desktop, mobile = await site.pair()
    for text, code in BAD:
        desktop.socket.send(text)
        error = await desktop.socket.error()
        assert error["code"] == code, text[:80]
        assert len(json.dumps(error)) < 1000
        # One good message keeps the count of bad ones from closing the connection.
        assert await desktop.socket.pending() == []
    assert await mobile.socket.pending() == []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info] == []


async def test_odd_but_valid_json_inside_a_payload_is_the_members_own_business(site: Site) -> None:
    desktop, mobile = await site.pair()
    for payload in (
        '{"a":"\\u0000"}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":1e400,"a":2}',
        '{"__proto__":{"admin":true},"constructor":null}',
        '{"a":"\\ud83d\\ude00"}',
        '{"":{"":[]}}',
    ):
        desktop.socket.send(f'{{"type":"channel_message","payload":{payload}}}')
        text = await mobile.socket.connection.read_message()
        assert f'"payload":{payload}' in str(text)


async def test_settings_with_odd_values_are_merged_as_they_came(site: Site) -> None:
    desktop, mobile = await site.pair()
    for value in ("9" * 5000, '"\\u0000"', "-1e400", '{"__proto__":1}'):
        desktop.socket.send(f'{{"type":"settings_sync","settings":{{"__proto__":{value}}}}}')
        text = str(await mobile.socket.connection.read_message())
        assert f'"settings":{{"__proto__":{value}}}' in text


# What is sent, and the close code for it. Many more are in test_frames.py.
BROKEN = (
    (frame(TEXT, b'{"type":"ping","sequence":1,"a":"\xff\xfe"}'), 1007),
    (frame(TEXT, b'{"type":"channel_message","payload":{"a":"\xed\xa0\x80"}}'), 1007),
    (frame(TEXT, b'{"type":"ping","a":"\xe2', final=False) + frame(0, b'\x28\xa1"}'), 1007),
    (frame(TEXT | 0x40, b'{"type":"ping"}'), 1002),
    (frame(3, b"reserved"), 1002),
    (frame(0, b"nothing to continue"), 1002),
    (frame(PING, b"", final=False), 1002),
    (frame(PING, b"x" * 126), 1002),
    (frame(TEXT, b"{", final=False) + frame(TEXT, b"}"), 1002),
    (frame(CLOSE, b"\x03"), 1002),
    (frame(CLOSE, b"\x03\xed"), 1002),
    (frame(CLOSE, b"\x03\xe8\xff\xfe"), 1007),
)


async def test_a_broken_frame_ends_the_connection_and_nothing_else(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    token = await site.ws_token(account, "mobile")
    join = {"type": "join_channel", "channel": mobile.channel, "session_id": mobile.session_id}
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    for broken, code in BROKEN:
        raw = RawSocket()
        await raw.open(site, f"?token={token}")
        await raw.send(TEXT, json.dumps(join).encode())
        await desktop.socket.expect("client_joined")
        await raw.send_bytes(broken + frame(TEXT, b'{"type":"channel_message","payload":{"late":1}}'))
        frames = await raw.rest()
        raw.close()
        assert [f for f in frames if b"error" in f.payload] == []
        assert frames[-1].close_code == code, broken
        await desktop.socket.expect("pairing_success")
        await desktop.socket.expect("mobile_disconnected")
        assert await desktop.socket.pending() == []
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info] == []


async def test_a_fragmented_message_is_one_message_also_with_a_ping_in_between(site: Site) -> None:
    raw = RawSocket()
    await raw.open(site, f"?token={await site.ws_token(await site.account(), 'mobile')}")
    await raw.read()
    await raw.send(TEXT, b'{"type":"pi', final=False)
    await raw.send(PING, b"beat")
    await raw.send(0, b'ng","sequence":5}')
    assert (await raw.read()).payload == b"beat"
    assert json.loads((await raw.read()).payload) == {"type": "pong", "sequence": 5}
    await raw.send(BINARY, b"\x00")
    assert b"INVALID_MESSAGE" in (await raw.read()).payload
    await raw.send(CLOSE, b"\x03\xe8")
    assert [f.close_code for f in await raw.rest()] == [1000]
    raw.close()


async def test_what_is_refused_is_named_by_its_id_wherever_it_is_refused(site: Site) -> None:
    """By the decoder, the relay, and the services."""
    account = await site.account()
    socket = await site.connect(account, "desktop")
    other = await site.ws_token(await site.account(), "desktop")
    for number, text in enumerate(
        (
            '{"type":"channel_message","payload":"\\ud83d","id":0}',
            '{"type":"channel_message","payload":{},"id":1}',
            '{"type":"join_channel","channel":"pair-000000","session_id":"desktop-1","id":2}',
            '{"type":"refresh_token","token":"nonsense","id":3}',
            json.dumps({"type": "refresh_token", "token": other, "id": 4}),
        )
    ):
        socket.send(text)
        assert (await socket.error())["id"] == number
    assert await socket.closed() == 4403
