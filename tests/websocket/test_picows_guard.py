"""What web/ and websocket/ lean on of picows and Tornado beyond what they promise. Fails when a new version changes it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from picows import WSAutoPingStrategy, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeResponse
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from pairing_server.websocket.engine import PicowsProtocol
from tests.websocket.raw import CLOSE, PING, TEXT, frame

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CONNECTED, GONE, PAUSED, RESUMED = "connected", "gone", "paused", "resumed"


class Transport:
    """The event loop's, of which picows sees no empty buffer."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.written: list[bytes] = []
        self.ended: list[str] = []
        self.closed = asyncio.Event()

    def get_extra_info(self, name: str) -> object:
        return self.socket if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return 1

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended.append("close")
        self.closed.set()

    def abort(self) -> None:
        self.ended.append("abort")


class Listener(WSListener):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.heard.append(CONNECTED)
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        bits = (frame.fin, frame.rsv1, frame.rsv2, frame.rsv3)
        payload = frame.get_payload_as_bytes()
        assert frame.payload_size == len(payload)
        self.heard.append((frame.msg_type, *map(bool, bits), payload))
        if frame.msg_type == WSMsgType.TEXT:
            assert frame.get_payload_as_utf8_text() == payload.decode()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.heard.append(GONE)

    def pause_writing(self) -> None:
        self.heard.append(PAUSED)

    def resume_writing(self) -> None:
        self.heard.append(RESUMED)


class Parsed:
    """A connection that picows serves without an event loop's transport."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.transport = Transport()
        self.protocol = WSProtocol(
            host_port=None,
            ws_path="/",
            is_client_side=False,
            ws_listener_factory=self.accept,
            logger=logging.getLogger("test"),
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,
            max_frame_size=1000,
            extra_headers=None,
            read_buffer_init_size=2048,
        )
        self.protocol.connection_made(self.transport)
        assert self.protocol.listener is None
        self.feed(UPGRADE)

    def accept(self, _: object) -> WSUpgradeResponseWithListener:
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": "a"})
        return WSUpgradeResponseWithListener(response, self.listener)

    def feed(self, data: bytes) -> None:
        buffer = self.protocol.get_buffer(-1)
        assert len(buffer) >= len(data)
        buffer[: len(data)] = data
        self.protocol.buffer_updated(len(data))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture
def parsed(loop: asyncio.AbstractEventLoop) -> Iterator[Parsed]:
    async def make() -> Parsed:
        return Parsed()

    made = loop.run_until_complete(make())
    yield made
    made.transport.socket.close()


def test_picows_is_a_buffered_protocol_that_may_be_subclassed() -> None:
    assert issubclass(WSProtocol, asyncio.BufferedProtocol)
    assert not issubclass(WSProtocol, asyncio.Protocol)
    assert issubclass(type("Subclass", (WSProtocol,), {}), WSProtocol)


def test_picows_answers_a_replayed_upgrade_through_the_transport(parsed: Parsed) -> None:
    [answer] = parsed.transport.written
    head = answer.lower()
    assert head.startswith(b"http/1.1 101 ")
    assert b"\r\nsec-websocket-accept: " in head
    assert b"\r\nsec-websocket-protocol: a\r\n" in head
    assert b"sec-websocket-extensions" not in head
    assert parsed.listener.heard == [CONNECTED]
    assert parsed.protocol.listener is parsed.listener
    assert parsed.listener.transport.underlying_transport is parsed.transport


def test_picows_hands_out_frames_with_all_we_ask_of_them_and_answers_none(parsed: Parsed) -> None:
    written = len(parsed.transport.written)
    sent = (
        frame(TEXT, "é".encode())
        + frame(PING | 0x40, b"x")
        + frame(TEXT, b"{", final=False)
        + frame(0x30, b"}")
        + frame(CLOSE, b"\x03\xe8bye")
    )
    parsed.feed(sent)
    no = (False, False, False)
    assert parsed.listener.heard[1:] == [
        (WSMsgType.TEXT, True, *no, "é".encode()),
        (WSMsgType.PING, True, True, False, False, b"x"),
        (WSMsgType.TEXT, False, *no, b"{"),
        (WSMsgType.CONTINUATION, True, False, True, True, b"}"),
        (WSMsgType.CLOSE, True, *no, b"\x03\xe8bye"),
    ]
    assert len(parsed.transport.written) == written
    assert [int(m.value) for m in (WSMsgType.CONTINUATION, WSMsgType.TEXT, WSMsgType.BINARY)] == [0, 1, 2]


def test_picows_refuses_through_the_transport_and_closes_later(
    parsed: Parsed, loop: asyncio.AbstractEventLoop
) -> None:
    parsed.feed(frame(TEXT, b"before") + frame(3, b"reserved"))
    _, refusal = parsed.transport.written
    assert refusal[0] == 0x80 | CLOSE
    assert refusal[1] == len(refusal) - 2
    assert refusal[2:4] == (1002).to_bytes(2, "big")
    # The frame before is handed out after that.
    assert parsed.listener.heard[-1][-1] == b"before"
    assert parsed.transport.ended == []

    loop.run_until_complete(asyncio.wait_for(parsed.transport.closed.wait(), 5))
    assert parsed.transport.ended == ["close"]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b"\x81\x00", 1002),  # no mask
        (b"\x81\xfe\x00\x05", 1002),  # not the shortest length
        (b"\x89\xfe", 1002),
        (b"\x09\x80", 1002),
        (b"\x82\xfe\x10\x00", 1009),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
def test_picows_refuses_what_the_engine_does_not_look_at(parsed: Parsed, broken: bytes, code: int) -> None:
    parsed.feed(broken)
    assert parsed.transport.written[-1][2:4] == code.to_bytes(2, "big")
    assert parsed.listener.heard == [CONNECTED]


def test_picows_tells_of_a_full_buffer_and_of_the_end(parsed: Parsed) -> None:
    parsed.protocol.pause_writing()
    parsed.protocol.resume_writing()
    parsed.protocol.connection_lost(None)
    assert parsed.listener.heard == [CONNECTED, PAUSED, RESUMED, GONE]


def test_tornados_stream_has_the_buffer_and_the_pattern_that_are_looked_at(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def look() -> None:
        near, far = socket.socketpair()
        stream = IOStream(near)
        try:
            reading = stream.read_until_regex(b"\r\n\r\n")
            assert stream._read_regex is not None
            far.send(b"head\r\n\r\nbehind")
            assert await reading == b"head\r\n\r\n"
            assert stream._read_regex is None
            assert isinstance(stream._read_buffer, bytearray)
            assert bytes(stream._read_buffer[: stream._read_buffer_size]) == b"behind"
        finally:
            stream.close()
            far.close()

    loop.run_until_complete(look())


def test_tornados_server_knows_its_connections(loop: asyncio.AbstractEventLoop) -> None:
    async def look() -> None:
        assert isinstance(HTTPServer(Application())._connections, set)

    loop.run_until_complete(look())
    assert "stream" in inspect.signature(HTTP1ServerConnection).parameters


def test_tornados_handler_calls_of_its_protocol_what_the_engine_has() -> None:
    for method in (WebSocketHandler.get, WebSocketHandler.close, WebSocketHandler.on_connection_close):
        called = set(re.findall(r"self\.ws_connection\.(\w+)", inspect.getsource(method)))
        assert called
        assert all(callable(getattr(PicowsProtocol, name)) for name in called)
