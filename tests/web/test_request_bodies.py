"""The server holds 16 KiB of a request's body at most, with and without a login, at every URL."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
import tracemalloc
from typing import cast

import pytest
from tornado.web import Application

from pairing_server.web.base_handler import BaseHandler, JSONHandler
from pairing_server.web.json_body import DRAINED_SIZE
from tests.conftest import CONFIGURATION, StartNode
from tests.devices import Site
from tests.web.test_http_edges import chunked

# One of each kind of handler: JSON, text, pages, files, a redirect, the socket, nothing.
URLS = (
    "/api/auth/login",
    "/healthz",
    "/metrics",
    "/docs",
    "/docs/",
    "/docs/swagger-ui.css",
    "/client/pairing.js",
    "/audit",
    "/audit/main.js",
    "/",
    "/phone",
    "/demo/main.js",
    "/ws",
    "/nothing",
)
CONNECTIONS = 3
OWED = 6


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node(demo=True)


def unread(site: Site) -> int:
    """Bytes that the kernel holds for the node's HTTP connections."""
    sizes = (
        fcntl.ioctl(connection.stream.socket, termios.FIONREAD, bytes(4))
        for connection in site.node.http._connections
        if connection.stream.socket is not None
    )
    return sum(struct.unpack("i", size)[0] for size in sizes)


def test_no_handler_leaves_a_body_to_tornado(site: Site) -> None:
    application = cast(Application, site.node.http.request_callback)
    handlers = [rule.target for rule in application.wildcard_router.rules]
    assert len(handlers) > 30
    for handler in [*handlers, application.settings["default_handler_class"]]:
        assert issubclass(handler, BaseHandler), handler
        assert handler.data_received in (BaseHandler.data_received, JSONHandler.data_received), handler


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_bodies_that_lack_their_end_are_not_held(site: Site, in_chunks: bool) -> None:
    body = bytes(DRAINED_SIZE)
    if in_chunks:
        length, sent = "Transfer-Encoding: chunked", chunked(body[: -16 * 1024], 8192)[:-OWED]
    else:
        length, sent = f"Content-Length: {len(body)}", body[:-OWED]
    await site.get("/healthz")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for url in CONNECTIONS * URLS:
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            site.sockets.append(writer)
            writer.transport.set_write_buffer_limits(0)
            upgrade = "Upgrade: websocket\r\n" if url == "/ws" else ""
            writer.write(f"GET {url} HTTP/1.1\r\nHost: a\r\n{upgrade}{length}\r\n\r\n".encode())
            writer.write(sent)
            await writer.drain()
        while unread(site):
            await site.get("/healthz")
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # Each has some 20 KiB of objects of its own, here and on the client's side.
    assert held < len(URLS) * CONNECTIONS * (CONFIGURATION.body_size + 48 * 1024), held
    assert (await site.get("/healthz")).status == 200


async def test_a_body_that_comes_byte_by_byte_is_one_object(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    body = b'{"username": "ada", "password": "a wrong one"}'
    head = f"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode())
    for byte in body:
        writer.write(bytes([byte]))
        await site.get("/healthz")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")
    writer.close()
