"""RFC 6455, frame by frame: what is joined, what is refused, and with which code."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc

import pytest

from tests.devices import Site
from tests.websocket.raw import BINARY, CLOSE, PING, PONG, TEXT, Frame, RawSocket, frame

pytestmark = pytest.mark.one_node

BEAT = b'{"type":"ping","sequence":5}'
ANSWER = {"type": "pong", "sequence": 5}
FINAL, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10


def masked(opcode: int, payload: bytes, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame as a browser sends it."""
    plain = frame(opcode, payload)
    head = plain[: len(plain) - len(payload) - 4]
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def headed(opcode: int, length: bytes, payload: bytes = b"") -> bytes:
    """A frame whose length is written as given."""
    return bytes([FINAL | opcode]) + length + bytes(4) + payload


def unmasked(opcode: int, payload: bytes) -> bytes:
    return bytes([FINAL | opcode, len(payload)]) + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


def parts(opcode: int, *payloads: bytes) -> bytes:
    """One message in so many fragments."""
    last = len(payloads) - 1
    return b"".join(
        frame(opcode if number == 0 else 0, payload, final=number == last)
        for number, payload in enumerate(payloads)
    )


async def greeted(site: Site, token: str, behind: bytes = b"") -> RawSocket:
    raw = RawSocket()
    await raw.open(site, f"?token={token}", behind=behind)
    assert b'"connected"' in (await raw.read()).payload
    return raw


async def token_of(site: Site) -> str:
    return await site.ws_token(await site.account(), "desktop")


async def ended(raw: RawSocket) -> list[Frame]:
    """All frames until the end; the last is the only close frame."""
    frames = await raw.rest()
    raw.close()
    assert [found.opcode == CLOSE for found in frames] == [False] * (len(frames) - 1) + [True]
    return frames


BAD_UTF_8 = (
    b"\xff",
    b"abc\xc3",  # cut off
    b"\xc0\xaf",  # overlong
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # past U+10FFFF
    b"\xf8\x88\x80\x80\x80",
    b"\x80",
)

BROKEN: dict[int, tuple[bytes, ...]] = {
    1002: (
        # No mask.
        unmasked(TEXT, BEAT),
        unmasked(PING, b""),
        unmasked(CLOSE, b"\x03\xe8"),
        # Reserved bits; the first of them would be compression.
        frame(TEXT | RSV1, BEAT),
        frame(TEXT | RSV2, BEAT),
        frame(BINARY | RSV3, BEAT),
        frame(PING | RSV1, b""),
        frame(TEXT, b"{", final=False) + frame(RSV1, b"}"),
        # Reserved opcodes.
        *(frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        frame(3, b"x", final=False),
        # Control frames in fragments, and longer than 125 bytes.
        *(frame(opcode, b"", final=False) for opcode in (CLOSE, PING, PONG)),
        *(frame(opcode, b"x" * 126) for opcode in (PING, PONG)),
        frame(CLOSE, b"\x03\xe8" + b"x" * 124),
        headed(PING, b"\xff" + struct.pack(">Q", 70_000)),
        # Fragments out of order.
        frame(0, BEAT),
        frame(0, BEAT, final=False),
        frame(TEXT, b"{", final=False) + frame(TEXT, BEAT),
        frame(TEXT, b"{", final=False) + frame(BINARY, b"}"),
        frame(TEXT, b"", final=False) + frame(TEXT, b"", final=False),
        parts(TEXT, BEAT[:5], BEAT[5:]) + frame(0, b""),
        # Lengths that are not in the shortest form, and one with its highest bit set.
        headed(TEXT, b"\xfe" + struct.pack(">H", len(BEAT)), BEAT),
        headed(TEXT, b"\xff" + struct.pack(">Q", len(BEAT)), BEAT),
        headed(TEXT, b"\xff" + struct.pack(">Q", 65535)),
        headed(TEXT, b"\xff" + struct.pack(">Q", 1 << 63)),
        # Close frames.
        frame(CLOSE, b"\x03"),
        *(
            closing(code)
            for code in (
                *(0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999),
                *(2000, 2999, 5000, 9999, 32768, 65535),
            )
        ),
    ),
    1007: (
        *(frame(TEXT, bad) for bad in BAD_UTF_8),
        *(parts(TEXT, b'{"type":"ping","a":"', bad, b'"}') for bad in BAD_UTF_8),
        parts(TEXT, b"\xe2\x82", b"", b"\x28"),
        closing(1000, b"\xff\xfe"),
        closing(3000, b"cut \xe2\x82"),
    ),
    1009: (
        headed(TEXT, b"\xff" + struct.pack(">Q", 1024 * 1024 + 1)),
        headed(BINARY, b"\xff" + struct.pack(">Q", 1 << 62)),
        parts(TEXT, *(b"x" * 65_000,) * 17),
    ),
}


async def test_what_breaks_the_protocol_is_closed_with_its_code_and_nothing_behind_it_is_taken(
    site: Site,
) -> None:
    desktop, mobile = await site.pair()
    token = await token_of(site)
    for code, cases in BROKEN.items():
        for broken in cases:
            raw = await greeted(site, token)
            with contextlib.suppress(ConnectionError):
                await raw.send_bytes(broken + frame(TEXT, BEAT) + frame(PING, b"late"))
            frames = await ended(raw)
            assert frames[-1].close_code == code, broken[:40]
            assert PONG not in [found.opcode for found in frames]
            # Only a whole message before the broken frame may have been answered.
            answers = [found for found in frames if b'"pong"' in found.payload]
            assert not answers or broken.startswith(parts(TEXT, BEAT[:5], BEAT[5:])), broken[:40]
    # The neighbours have noticed nothing.
    desktop.socket.send({"type": "channel_message", "payload": {"n": 1}})
    assert (await mobile.socket.receive())["payload"] == {"n": 1}
    assert await desktop.socket.pending() == []
    assert len(site.node.hub.connections) == 2


async def test_a_broken_frame_is_refused_in_whatever_pieces_it_comes(site: Site) -> None:
    token = await token_of(site)
    for broken, code in (
        (headed(TEXT, b"\xfe" + struct.pack(">H", len(BEAT)), BEAT), 1002),
        (unmasked(TEXT, BEAT), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (closing(1006), 1002),
        (headed(TEXT, b"\xff" + struct.pack(">Q", 1 << 40)), 1009),
    ):
        raw = await greeted(site, token)
        with contextlib.suppress(ConnectionError):
            for byte in broken + frame(TEXT, BEAT):
                await raw.send_bytes(bytes([byte]))
        [end] = await ended(raw)
        assert end.close_code == code


async def test_a_message_before_a_broken_frame_is_taken_all_the_same(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    raw = await greeted(site, await site.ws_token(account, "mobile"))
    join = {"type": "join_channel", "channel": mobile.channel, "session_id": mobile.session_id}
    await raw.send(TEXT, json.dumps(join).encode())
    assert b'"channel_joined"' in (await raw.read()).payload
    await desktop.socket.expect("client_joined")
    messages = [json.dumps({"type": "channel_message", "payload": {"n": n}}).encode() for n in range(3)]
    await raw.send_bytes(b"".join(frame(TEXT, message) for message in messages) + unmasked(TEXT, BEAT))
    await ended(raw)
    for number in range(3):
        assert (await desktop.socket.expect("channel_message"))["payload"] == {"n": number}
    await desktop.socket.expect("mobile_disconnected")


async def test_fragments_are_joined_with_control_frames_in_between(site: Site) -> None:
    raw = await greeted(site, await token_of(site))
    text = '{"type":"ping","sequence":5,"a":"é€😀"}'.encode()
    for pieces in (
        [text],
        [text, b""],
        [b"", text],
        [b"", b"", text, b"", b""],
        [text[:10], text[10:]],
        # In the middle of every character.
        [text[i : i + 1] for i in range(len(text))],
    ):
        await raw.send_bytes(parts(TEXT, *pieces))
        assert json.loads((await raw.read()).payload) == ANSWER
    await raw.send_bytes(
        frame(TEXT, text[:3], final=False)
        + frame(PING, b"one")
        + frame(0, text[3:7], final=False)
        + frame(PONG, b"unasked")
        + frame(PING, b"two")
        + frame(0, text[7:])
    )
    assert [(await raw.read()).payload for _ in range(2)] == [b"one", b"two"]
    assert json.loads((await raw.read()).payload) == ANSWER
    await raw.send_bytes(parts(BINARY, b"\x00", b"\xff"))
    assert b"INVALID_MESSAGE" in (await raw.read()).payload
    await raw.send_bytes(frame(TEXT, b"{", final=False) + closing(1000))
    assert [found.close_code for found in await ended(raw)] == [1000]


async def test_sixty_four_fragments_are_a_message_and_one_more_closes_4429(site: Site) -> None:
    token = await token_of(site)
    raw = await greeted(site, token)
    await raw.send_bytes(parts(TEXT, BEAT, *[b""] * 63) * 2)
    for _ in range(2):
        assert json.loads((await raw.read()).payload) == ANSWER
    await raw.send_bytes(parts(TEXT, BEAT, *[b""] * 64))
    assert [found.close_code for found in await ended(raw)] == [None, 4429]
    unfinished = await greeted(site, token)
    await unfinished.send_bytes(parts(TEXT, *[b"x"] * 66)[:-7])
    error, close = await ended(unfinished)
    assert json.loads(error.payload)["details"] == {"limit": "fragments", "retry_after_ms": 10_000}
    assert close.close_code == 4429


async def test_a_message_of_any_length_and_mask_arrives_whole(site: Site) -> None:
    raw = await greeted(site, await token_of(site))
    for size in (29, 125, 126, 127, 128, 255, 256, 16_384, 65_535, 65_536, 65_537, 500_000):
        for mask in (bytes(4), b"\x37\xfa\x21\x3d", b"\xff\xff\xff\xff"):
            text = (BEAT[:-1] + b',"a":"').ljust(size - 2, b"x") + b'"}' if size > 40 else BEAT + b" "
            assert len(text) == size
            await raw.send_bytes(masked(TEXT, text, mask))
            answer = json.loads((await raw.read()).payload)
            assert answer == ANSWER or answer["details"]["size"] == size
    raw.close()


async def test_an_empty_message_is_a_message(site: Site) -> None:
    raw = await greeted(site, await token_of(site))
    for empty in (frame(TEXT), frame(BINARY), parts(TEXT, b"", b"")):
        await raw.send_bytes(empty)
        assert b"INVALID_MESSAGE" in (await raw.read()).payload
    await raw.send_bytes(frame(TEXT, BEAT))
    assert json.loads((await raw.read()).payload) == ANSWER
    raw.close()


async def test_frames_may_come_byte_by_byte(site: Site) -> None:
    raw = await greeted(site, await token_of(site))
    for byte in masked(PING, b"beat") + masked(TEXT, BEAT) + masked(TEXT, BEAT + b" " * 120):
        await raw.send_bytes(bytes([byte]))
    assert await raw.read() == Frame(PONG, b"beat")
    for _ in range(2):
        assert json.loads((await raw.read()).payload) == ANSWER
    raw.close()


async def test_what_comes_in_one_segment_with_the_upgrade_is_taken_after_the_greeting(site: Site) -> None:
    token = await token_of(site)
    identify = b'{"type":"identify","device_type":"desktop","session_id":"desktop-1"}'
    raw = await greeted(
        site, token, masked(TEXT, identify) + masked(TEXT, BEAT) + masked(TEXT, BEAT.ljust(15_000)) * 3
    )
    assert json.loads((await raw.read()).payload)["type"] == "identified"
    for _ in range(4):
        assert json.loads((await raw.read()).payload) == ANSWER
    await raw.send_bytes(closing(1000))
    assert [found.close_code for found in await ended(raw)] == [1000]
    for behind, code in ((unmasked(TEXT, BEAT), 1002), (frame(TEXT, b"\xff"), 1007), (closing(1001), 1001)):
        raw = RawSocket()
        await raw.open(site, f"?token={token}", behind=behind)
        assert (await ended(raw))[-1].close_code == code
    half = await greeted(site, token, masked(TEXT, BEAT)[:9])
    await half.send_bytes(masked(TEXT, BEAT)[9:])
    assert json.loads((await half.read()).payload) == ANSWER
    half.close()


async def test_a_websocket_ping_is_answered_with_its_payload(site: Site) -> None:
    raw = await greeted(site, await token_of(site))
    for payload in (b"", b"beat", b"\x00\xff\xfe", b"x" * 125):
        await raw.send_bytes(masked(PING, payload))
        assert await raw.read() == Frame(PONG, payload)
    raw.close()


async def test_compression_is_not_negotiated(site: Site) -> None:
    token = await token_of(site)
    for offer in (
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits; server_no_context_takeover, x-webkit-deflate-frame",
    ):
        raw = RawSocket()
        head = await raw.open(site, f"?token={token}", {"Sec-WebSocket-Extensions": offer})
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in head.lower()
        await raw.read()
        await raw.send_bytes(masked(TEXT | RSV1, b"\xaaV*\xa9,HU\xb2R\xca\xccK\xcf\x07\x00"))
        assert [found.close_code for found in await ended(raw)] == [1002]


async def test_a_frame_that_says_it_has_100_mib_is_refused_before_any_of_it_is_kept(site: Site) -> None:
    raw = await greeted(site, await token_of(site))
    tracemalloc.start()
    try:
        with contextlib.suppress(ConnectionError):
            await raw.send_bytes(headed(TEXT, b"\xff" + struct.pack(">Q", 100 * 1024 * 1024)))
            for _ in range(64):
                await raw.send_bytes(bytes(65_536))
        frames = await raw.rest()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    raw.close()
    assert [found.close_code for found in frames] == [1009]
    assert peak < 1024 * 1024
