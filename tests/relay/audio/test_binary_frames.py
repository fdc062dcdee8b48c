"""Audio as a binary frame: the layout, both ways."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairing_server.errors import InvalidMessage, ValidationFailed
from pairing_server.relay import requests
from pairing_server.relay.audio import binary_frames
from pairing_server.websocket.commands import COMMANDS


@given(
    st.text("abc-123é", max_size=30),
    st.text("webm/ogg", max_size=20),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=500),
)
def test_a_frame_decodes_to_what_was_encoded(chunk_id: str, kind: str, rate: int, sound: bytes) -> None:
    found = binary_frames.decode(binary_frames.encode(sound, 7, chunk_id, kind, rate))
    assert (found.chunk_id, found.format, found.sample_rate) == (chunk_id or None, kind or None, rate or None)
    assert found.sound == found.as_bytes() == sound


def test_the_layout_is_the_documented_one() -> None:
    frame = binary_frames.encode(b"\x01\x02", 5, "c1", "webm", 16000)
    assert frame == b"\x01\x02\x04\x00" + struct.pack("!II", 16000, 5) + b"c1webm\x01\x02"


@pytest.mark.parametrize("frame", [b"", b"\x01", b"\x01" * 11, b"\x02" + bytes(11), b"\x00" * 20])
def test_what_is_no_audio_of_version_1_is_an_invalid_message(frame: bytes) -> None:
    with pytest.raises(InvalidMessage):
        binary_frames.decode(frame)


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        (b"\x01\xff\x00\x00" + bytes(8) + b"x" * 300, "chunk_id"),
        (b"\x01\x04\x00\x00" + bytes(8) + b"abc", "chunk_id"),
        (b"\x01\x01\x00\x00" + bytes(8) + b"\xff", "chunk_id"),
        (b"\x01\x00\x02\x00" + bytes(8) + b"\xc3\x28", "format"),
    ],
)
def test_a_name_that_does_not_fit_is_told_by_its_field(frame: bytes, field: str) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        binary_frames.decode(frame)
    assert refusal.value.details == {"field": field}


@given(st.text("a\u00e9\u20ac\U0001f3a4", min_size=100, max_size=128))
def test_a_name_that_json_allows_is_cut_between_characters(name: str) -> None:
    found = binary_frames.decode(binary_frames.encode(b"", 1, name, name, None))
    assert found.chunk_id == found.format
    assert found.chunk_id is not None
    assert name.startswith(found.chunk_id)
    assert min(len(name.encode()), 125) <= len(found.chunk_id.encode()) <= 128


def test_json_audio_becomes_bytes_only_if_it_is_base64() -> None:
    def chunk(data: str) -> requests.AudioChunk:
        found = COMMANDS.decode('{"type":"audio_chunk","data":' + data + "}")
        assert isinstance(found, requests.AudioChunk)
        return found

    assert chunk('"AAEC"').as_bytes() == b"\x00\x01\x02"
    assert chunk(r'"\/\/8="').as_bytes() == b"\xff\xff"
    assert chunk('"not base64!"').as_bytes() is None
