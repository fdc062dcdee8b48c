"""Audio in both forms: each receiver gets the one it has asked for, whatever the sender uses."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4

import pytest

from pairing_server.relay.audio import binary_frames
from tests.devices import Device, Site

pytestmark = pytest.mark.one_node

SOUND = bytes(range(256)) * 4


async def pair(site: Site, *, desktop_binary: bool, mobile_binary: bool) -> tuple[Device, Device]:
    account = await site.account()
    connections = {"desktop": f"desktop-{uuid4().hex}", "mobile": f"mobile-{uuid4().hex}"}
    code = await site.code(account, connections["desktop"])
    assert (await site.redeem(account, code, connections["mobile"])).status == 200
    devices = []
    for role, takes in (("desktop", desktop_binary), ("mobile", mobile_binary)):
        socket = await site.connect(account, role)
        socket.send(
            {"type": "join_channel", "channel": f"pair-{code}", "device_type": role,
             "session_id": connections[role], "binary_audio": takes}
        )  # fmt: skip
        await socket.expect("channel_joined")
        devices.append(Device(socket, connections[role], role, f"pair-{code}"))
    for device in devices:
        await device.socket.pending()
    return devices[0], devices[1]


async def received(device: Device) -> Any:
    """The next message: bytes, or what the JSON says."""
    message = await device.socket.connection.read_message()
    return message if isinstance(message, bytes) else json.loads(message or "null")


async def test_binary_audio_reaches_a_binary_receiver_as_it_is(site: Site) -> None:
    desktop, mobile = await pair(site, desktop_binary=True, mobile_binary=False)
    mobile.socket.send(binary_frames.encode(SOUND, 0, "c1", "webm", 16000))
    assert await received(desktop) == binary_frames.encode(SOUND, 1, "c1", "webm", 16000)


async def test_binary_audio_is_json_for_a_receiver_that_has_not_asked(site: Site) -> None:
    desktop, mobile = await pair(site, desktop_binary=False, mobile_binary=True)
    mobile.socket.send(binary_frames.encode(SOUND, 0, "c1", "webm", 16000))
    chunk = await received(desktop)
    assert (chunk["type"], chunk["chunk_id"], chunk["format"], chunk["sample_rate"]) == (
        "audio_chunk", "c1", "webm", 16000,
    )  # fmt: skip
    assert base64.b64decode(chunk["data"]) == SOUND
    assert chunk["audio_seq"] == 1


async def test_json_audio_is_binary_for_a_receiver_that_has_asked(site: Site) -> None:
    desktop, mobile = await pair(site, desktop_binary=True, mobile_binary=False)
    data = base64.b64encode(SOUND).decode()
    mobile.socket.send(
        {"type": "audio_chunk", "chunk_id": "c2", "data": data, "format": "ogg", "sample_rate": 48000}
    )
    assert await received(desktop) == binary_frames.encode(SOUND, 1, "c2", "ogg", 48000)


async def test_json_audio_that_is_no_base64_stays_json(site: Site) -> None:
    desktop, mobile = await pair(site, desktop_binary=True, mobile_binary=False)
    mobile.socket.send({"type": "audio_chunk", "chunk_id": "c3", "data": "?"})
    assert (await received(desktop))["data"] == "?"


async def test_a_binary_frame_that_is_no_audio_is_an_error_and_the_connection_stays(site: Site) -> None:
    desktop, mobile = await pair(site, desktop_binary=True, mobile_binary=True)
    mobile.socket.send(b"\x09 no audio at all")
    assert (await mobile.socket.error())["code"] == "INVALID_MESSAGE"
    assert await desktop.socket.pending() == []


async def test_binary_audio_before_joining_is_not_in_channel(site: Site) -> None:
    socket = await site.connect(await site.account(), "mobile")
    socket.send(binary_frames.encode(SOUND, 0, None, None, None))
    assert (await socket.error())["code"] == "NOT_IN_CHANNEL"


async def test_binary_audio_over_its_size_is_too_large_and_the_connection_stays(site: Site) -> None:
    _, mobile = await pair(site, desktop_binary=True, mobile_binary=True)
    mobile.socket.send(binary_frames.encode(bytes(512 * 1024), 0, "big", None, None))
    error = await mobile.socket.error()
    assert (error["code"], error["details"]["limit"]) == ("PAYLOAD_TOO_LARGE", 512 * 1024)
    assert await mobile.socket.pending() == []
