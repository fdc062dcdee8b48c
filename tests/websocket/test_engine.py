"""What the engine does for speed: one system call for what came together, turns, letting go of the upgrade."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Sequence
from typing import Any, cast

import pytest
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPMessageDelegate, HTTPServerConnectionDelegate

from pairing_server.websocket.handler import SAMPLED
from pairing_server.websocket.receive_queue import BURST
from tests.conftest import StartNode
from tests.devices import Site
from tests.websocket.raw import PING, PONG, Frame, frame
from tests.websocket.raw_pair import RawDevice, connected, raw_pair, said, text, until

FLOOD = 2000


@pytest.fixture
def busy(start_node: StartNode) -> Site:
    """A node that takes as many messages as come."""
    return start_node(message_rate=1_000_000, message_burst=1_000_000, frame_rate=1_000_000)


class Counted:
    """The event loop's transport, with what is written to it."""

    def __init__(self, device: RawDevice) -> None:
        self._real = device.protocol._transport
        self.written: list[bytes] = []
        self.get_extra_info: Any = self._real.get_extra_info
        device.protocol._writer._transport = self

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))
        self._real.write(data)

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.written.append(b"".join(parts))
        self._real.writelines(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_the_messages_of_one_segment_leave_in_few_writes(busy: Site) -> None:
    desktop, mobile = await raw_pair(busy)
    out, back = Counted(mobile), Counted(desktop)
    messages = [{"type": "channel_message", "payload": {"n": n}, "id": n} for n in range(100)]
    await desktop.raw.send_bytes(b"".join(map(text, messages)))
    assert await mobile.numbers(100) == list(range(100))
    assert [ack["id"] for ack in await desktop.messages(100)] == list(range(100))
    # The buffer that is read into grows from 512 bytes, and a burst has its end.
    assert len(out.written) <= 12
    assert len(back.written) <= 12


async def test_messages_of_their_own_segments_are_not_held_back_for_others(busy: Site) -> None:
    desktop, mobile = await raw_pair(busy)
    out = Counted(mobile)
    for number in range(10):
        await desktop.raw.send_bytes(said(number))
        assert await mobile.numbers(1) == [number]
        assert len(out.written) == number + 1


class Options:
    """A socket, with the options that are set on it."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.set: list[tuple[int, int, int]] = []

    def setsockopt(self, *option: int) -> None:
        self.set.append((option[0], option[1], option[2]))
        self.real.setsockopt(*option)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux has it")
async def test_a_client_that_sends_on_and_on_is_not_told_of_each_segment(busy: Site) -> None:
    desktop, mobile = await raw_pair(busy)
    options = Options(desktop.protocol._transport.get_extra_info("socket"))
    out = Counted(desktop)
    out.get_extra_info = lambda name: options if name == "socket" else None
    before = desktop.connection.received
    for number in range(SAMPLED + 1 - before):
        await desktop.raw.send_bytes(said(number))
        assert await mobile.numbers(1) == [number]
    assert options.set == []
    await desktop.raw.send_bytes(said(0))
    assert await mobile.numbers(1) == [0]
    assert options.set == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)]


async def test_large_messages_of_one_read_leave_before_they_pile_up(busy: Site) -> None:
    desktop, mobile = await raw_pair(busy)
    # The buffer grows with what comes.
    await desktop.raw.send_bytes(said(0, pad="x" * 60_000))
    assert await mobile.numbers(1) == [0]
    out = Counted(mobile)
    sending = asyncio.ensure_future(
        desktop.raw.send_bytes(b"".join(said(n, pad="x" * 30_000) for n in range(1, 21)))
    )
    assert await mobile.numbers(20) == list(range(1, 21))
    await sending
    assert max(map(len, out.written)) < 64 * 1024 + 31_000


@pytest.mark.parametrize("talk", [0, 1, 10])
async def test_no_turn_of_the_loop_serves_more_than_a_burst_of_a_flood(busy: Site, talk: int) -> None:
    desktop, mobile = await raw_pair(busy)
    # The buffer grows with what comes: a large message before lets hundreds of small ones be read at once.
    await desktop.raw.send_bytes(said(0, pad="x" * 60_000))
    assert await mobile.numbers(1) == [0]
    for number in range(talk):
        # One at a time, as they mostly come.
        await desktop.raw.send_bytes(said(number))
        assert await mobile.numbers(1) == [number]
    connection = desktop.connection
    before = last = connection.received
    sending = asyncio.ensure_future(desktop.raw.send_bytes(b"".join(said(n) for n in range(FLOOD))))
    hearing = asyncio.ensure_future(mobile.numbers(FLOOD))
    steps = []
    while connection.received < before + FLOOD:
        await asyncio.sleep(0)
        steps.append(connection.received - last)
        last = connection.received
    assert max(steps) <= 2 * BURST
    await sending
    assert await hearing == list(range(FLOOD))


async def test_others_are_answered_while_a_flood_is_served(busy: Site) -> None:
    desktop, mobile = await raw_pair(busy)
    quiet, _ = await connected(busy, await busy.ws_token(await busy.account(), "mobile"))
    before = desktop.connection.received
    sending = asyncio.ensure_future(desktop.raw.send_bytes(b"".join(said(n) for n in range(FLOOD))))
    hearing = asyncio.ensure_future(mobile.numbers(FLOOD))
    await until(lambda: desktop.connection.received > before)
    served = []
    for number in range(10):
        await quiet.send_bytes(text({"type": "ping", "sequence": number}) + frame(PING, b"beat"))
        assert b'"pong"' in (await quiet.read()).payload
        assert (await quiet.read()).opcode == PONG
        served.append(desktop.connection.received - before)
    # The answers come while the flood is still being served.
    assert served[0] < served[-1] < FLOOD
    await sending
    assert await hearing == list(range(FLOOD))


class Watched(HTTPServerConnectionDelegate):
    """The application, with what it was given for each request."""

    def __init__(self, real: HTTPServerConnectionDelegate) -> None:
        self._real = real
        self.parts: list[weakref.ref[object]] = []

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        stream = cast(HTTP1Connection, request_conn).stream
        self.parts.extend(weakref.ref(part) for part in (request_conn, stream, stream.socket))
        return self._real.start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        self._real.on_close(server_conn)


def upgrade_headers() -> list[HTTPHeaders]:
    """The headers of upgrades that are in memory."""
    headers = [found for found in gc.get_objects() if type(found) is HTTPHeaders]
    return [found for found in headers if "Sec-WebSocket-Key" in found]


async def test_after_the_upgrade_what_only_it_needed_is_let_go(busy: Site) -> None:
    token = await busy.ws_token(await busy.account(), "mobile")
    server: Any = busy.node.http
    server.request_callback = watched = Watched(server.request_callback)
    # Those of other tests' clients.
    before = upgrade_headers()
    raw, _ = await connected(busy, token)
    gc.collect()
    assert [part() for part in watched.parts] == [None] * 3
    assert [found for found in upgrade_headers() if not any(found is other for other in before)] == []
    await raw.send_bytes(text({"type": "ping", "sequence": 1}) + frame(PING, b"beat"))
    assert b'"pong"' in (await raw.read()).payload
    assert await raw.read() == Frame(PONG, b"beat")
