"""Who comes into the middle of a recording gets its beginning first, or could decode nothing of it."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairing_server.relay.audio import binary_frames
from pairing_server.relay.audio.stream_header import (
    CLUSTER,
    EBML,
    LARGEST,
    MOST_ELEMENTS,
    StreamHeader,
    begins,
)
from tests.relay.wire import Client, Relay

INIT = EBML + b"header, segment, tracks"


def cluster(timestamp: int, *blocks: bytes) -> bytes:
    """A cluster of unknown size, as recorders write it."""
    stamp = timestamp.to_bytes(3, "big")
    head = CLUSTER + b"\x01" + b"\xff" * 7 + b"\xe7" + bytes([0x80 | len(stamp)]) + stamp
    return head + b"".join(blocks)


def block(content: bytes) -> bytes:
    """A SimpleBlock (RFC 9559, section 5.1.3.4)."""
    inside = b"\x81\x00\x00\x80" + content
    return b"\xa3" + (0x4000 | len(inside)).to_bytes(2, "big") + inside


def page(kind: int, position: int, content: bytes) -> bytes:
    """An Ogg page (RFC 3533, section 6)."""
    full, rest = divmod(len(content), 255)
    sizes = bytes([255] * full + [rest])
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, kind, position, 1, 0, 0, len(sizes))
    return head + sizes + content


def fed(*chunks: bytes) -> bytes | None:
    start = StreamHeader()
    for chunk in chunks:
        start.feed(chunk)
    return start.before_next()


def test_of_webm_everything_up_to_the_first_cluster_and_the_time_of_the_last() -> None:
    assert fed(INIT + cluster(0, block(b"1"))) == INIT + cluster(0)
    chunks = INIT + cluster(0, block(b"1")), block(b"2"), cluster(7000, block(b"3")), block(b"4")
    assert fed(*chunks) == INIT + cluster(7000)


@pytest.mark.parametrize("size", range(1, 40))
def test_however_the_stream_is_cut_into_chunks(size: int) -> None:
    blocks = [block(bytes([number]) * number) for number in range(9)]
    stream = INIT + cluster(0, *blocks) + cluster(70_000, *blocks)
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert fed(*chunks) == INIT + cluster(70_000)


@pytest.mark.parametrize("cut", range(1, len(block(b"sound"))))
def test_with_what_was_heard_of_a_block_that_is_not_complete(cut: int) -> None:
    # Chromium's recorder cuts after the first byte of a block.
    begun = block(b"sound")[:cut]
    assert fed(INIT + cluster(0, block(b"1"), begun)) == INIT + cluster(0, begun)
    assert fed(INIT + cluster(0, block(b"1"), begun), block(b"sound")[cut:]) == INIT + cluster(0)


def test_what_looks_like_a_cluster_inside_a_block_is_none() -> None:
    assert fed(INIT + cluster(0, block(cluster(99))), block(b"2")) == INIT + cluster(0)


def test_after_a_chunk_is_missing_it_goes_on_with_the_next_cluster() -> None:
    # A block whose end never came, then what is no element.
    chunks = INIT + cluster(0, block(b"1234567890")[:5]), b"\x00" * 100, block(b"2")
    assert fed(*chunks) is None
    assert fed(*chunks, cluster(8000, block(b"3")), block(b"4")) == INIT + cluster(8000)
    assert fed(*chunks, cluster(8000)[:3], cluster(8000)[3:]) == INIT + cluster(8000)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_nothing_that_follows_makes_it_fail_or_grow(chunks: list[bytes]) -> None:
    start = fed(INIT + cluster(0), *(chunk for chunk in chunks if not begins(chunk)))
    assert start is None or len(start) < 700


def test_a_cluster_whose_time_is_told_again_and_again_does_not_grow() -> None:
    start = StreamHeader()
    start.feed(INIT + cluster(0))
    for number in range(1000):
        start.feed(b"\xe7\x81" + bytes([number % 256]))
    assert start.before_next() == INIT + CLUSTER + b"\x01" + b"\xff" * 7 + b"\xe7\x81" + bytes([999 % 256])
    start.feed(b"\xe7\x89" + bytes(9))
    assert start.before_next() is None, "that is no time"


def test_a_chunk_is_followed_only_so_far_and_then_from_the_next_cluster_on() -> None:
    empty = b"\x81\x80"
    assert fed(INIT + cluster(0), empty * MOST_ELEMENTS) == INIT + cluster(0)
    assert fed(INIT + cluster(0), empty * (MOST_ELEMENTS + 1)) is None
    assert fed(INIT + cluster(0), empty * (MOST_ELEMENTS + 1), cluster(9), block(b"1")) == INIT + cluster(9)


def test_a_cluster_that_says_its_size_may_be_continued_too() -> None:
    sized = CLUSTER + b"\x42\x00" + b"\xe7\x81\x05" + block(b"1")
    assert fed(INIT + sized) == INIT + CLUSTER + b"\x01" + b"\xff" * 7 + b"\xe7\x81\x05"


def test_of_ogg_the_pages_without_sound() -> None:
    head, tags, sound = (
        page(2, 0, b"OpusHead" + bytes(11)),
        page(0, 0, b"OpusTags" + bytes(600)),
        page(0, 960, b"sound"),
    )
    assert fed(head + tags + sound, page(0, 1920, b"more")) == head + tags
    assert fed(head, tags, sound) == head + tags
    assert fed(head + tags[:100], tags[100:] + sound[:30]) == head + tags
    assert fed(head, tags) is None
    assert not begins(tags)


@pytest.mark.parametrize("cut", range(1, 8))
def test_the_first_bytes_may_come_alone(cut: int) -> None:
    webm = INIT + cluster(0, block(b"1"))
    ogg = page(2, 0, b"OpusHead" + bytes(11)) + page(0, 0, b"OpusTags") + page(0, 960, b"sound")
    for before in ((), (INIT + cluster(9, block(b"0")), block(b"1")), (b"\x1a",), (b"O",)):
        assert fed(*before, webm[:cut], webm[cut:]) == INIT + cluster(0)
        assert fed(*before, ogg[:cut], ogg[cut:]) == ogg[: -len(page(0, 960, b"sound"))]


def test_other_formats_and_endless_beginnings_are_left_alone() -> None:
    assert fed(b"RIFF....WAVEfmt ", b"more") is None
    start = StreamHeader()
    start.feed(b"RIFF")
    assert not start.watching
    start.feed(EBML)
    for _ in range(LARGEST // 1000 + 1):
        start.feed(bytes(1000))
    assert not start.watching
    assert fed(EBML + bytes(LARGEST) + cluster(0)) is None


def test_a_new_recording_replaces_the_old_one() -> None:
    other = EBML + b"other tracks"
    assert fed(INIT + cluster(9), other) is None
    assert fed(INIT + cluster(9), other + cluster(0)) == other + cluster(0)


def say(client: Client, sound: bytes) -> None:
    client.send({"type": "audio_chunk", "data": base64.b64encode(sound).decode(), "format": "webm-opus"})


def heard(client: Client) -> list[tuple[int, bytes]]:
    chunks = [message for message in client.received() if message["type"] == "audio_chunk"]
    assert all(chunk["format"] == "webm-opus" for chunk in chunks)
    return [(chunk["audio_seq"], base64.b64decode(chunk["data"])) for chunk in chunks]


def test_who_joins_in_the_middle_gets_the_beginning_once_with_a_number_of_its_own() -> None:
    relay = Relay()
    channel = relay.channel()
    desktop, mobile = relay.client("desktop"), relay.client("mobile")
    desktop.join(channel)
    say(desktop, INIT + cluster(0, block(b"1")))
    say(desktop, block(b"2"))
    mobile.join(channel)
    mobile.received()
    say(desktop, block(b"3"))
    say(desktop, block(b"4"))
    assert heard(mobile) == [(3, INIT + cluster(0)), (4, block(b"3")), (5, block(b"4"))]


def test_who_heard_the_beginning_does_not_get_it_again() -> None:
    desktop, mobile = Relay().pair()
    say(desktop, INIT + cluster(0, block(b"1")))
    say(desktop, block(b"2"))
    assert heard(mobile) == [(1, INIT + cluster(0, block(b"1"))), (2, block(b"2"))]


@pytest.mark.parametrize("sends_binary", [False, True])
def test_who_joins_within_the_first_bytes_gets_those_that_he_has_missed(sends_binary: bool) -> None:
    relay = Relay()
    channel = relay.channel()
    desktop, mobile = relay.client("desktop"), relay.client("mobile")
    desktop.join(channel)

    def send(sound: bytes) -> None:
        if sends_binary:
            desktop.send(binary_frames.encode(sound, 0, None, "webm-opus", None))
        else:
            say(desktop, sound)

    whole = INIT + cluster(0, block(b"1"))
    send(whole[:1])
    mobile.join(channel)
    mobile.received()
    send(whole[1:])
    assert heard(mobile) == [(2, whole[:1]), (3, whole[1:])]


@pytest.mark.parametrize("receives_binary", [False, True])
@pytest.mark.parametrize("sends_binary", [False, True])
def test_who_comes_back_gets_the_beginning_in_its_own_form(sends_binary: bool, receives_binary: bool) -> None:
    relay = Relay()
    desktop, mobile = relay.pair()
    channel = desktop.connection.channel
    assert channel is not None

    def send(sound: bytes) -> None:
        if sends_binary:
            desktop.send(binary_frames.encode(sound, 0, None, "webm-opus", None))
        else:
            say(desktop, sound)

    send(INIT + cluster(0, block(b"1")))
    relay.hub.remove(mobile.connection, "gone", relay.now)
    send(cluster(5, block(b"2")))
    again = relay.client("mobile")
    again.join(channel, binary_audio=receives_binary)
    again.received()
    send(block(b"3"))
    if receives_binary:
        chunks = [binary_frames.decode(frame) for frame in again.wire.carried]
        assert [chunk.sound for chunk in chunks] == [INIT + cluster(5), block(b"3")]
        assert {chunk.format for chunk in chunks} == {"webm-opus"}
    else:
        assert [sound for _, sound in heard(again)] == [INIT + cluster(5), block(b"3")]


def test_who_does_not_keep_up_gets_the_beginning_after_the_gap() -> None:
    relay = Relay(queue_pause=2000, audio_rate=1000)
    desktop, mobile = relay.pair()
    say(desktop, INIT + cluster(0, block(b"0")))
    mobile.wire.stalled = True
    for _ in range(20):
        say(desktop, block(bytes(200)))
    mobile.wire.stalled = False
    mobile.wire.read()
    say(desktop, block(b"last"))
    sounds = [sound for _, sound in heard(mobile)]
    assert INIT + cluster(0) in sounds
    assert sounds[-1] == block(b"last")


def test_data_that_is_no_base64_is_passed_on_as_it_is() -> None:
    desktop, mobile = Relay().pair()
    desktop.send({"type": "audio_chunk", "data": "GkXfo!!", "format": "webm-opus"})
    [chunk] = mobile.received()
    assert chunk["data"] == "GkXfo!!"
