"""The bounds of the HTTP server, below any handler."""

from __future__ import annotations

import asyncio

from pairing_server.web.listener import BODY_TIMEOUT, HEADER_SIZE, HEADER_TIMEOUT, IDLE_TIMEOUT
from tests.devices import Site


async def test_the_servers_bounds_are_ours_and_not_tornados(site: Site) -> None:
    params = site.node.http.conn_params
    assert (params.max_header_size, params.header_timeout) == (HEADER_SIZE, IDLE_TIMEOUT) == (16384, 20)
    assert (params.body_timeout, params.max_body_size) == (BODY_TIMEOUT, 1024 * 1024)
    assert site.node.http.xheaders is False


async def test_a_header_that_trickles_in_is_cut_after_its_time(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    await writer.drain()
    # A second connection's whole request shows that the first one's bytes have been read by now.
    assert (await site.get("/healthz")).status == 200
    now = site.node.edge.now()
    assert site.node.http.cut_slow_headers(now) == 0
    assert site.node.http.cut_slow_headers(now + HEADER_TIMEOUT) == 1
    assert await reader.read() == b""
    writer.close()


async def test_an_idle_connection_is_not_taken_for_a_slow_header(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    now = site.node.edge.now()
    site.node.http.cut_slow_headers(now)
    assert site.node.http.cut_slow_headers(now + HEADER_TIMEOUT) == 0
    writer.close()


async def test_a_header_over_its_size_is_refused(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Big: " + b"a" * HEADER_SIZE + b"\r\n\r\n")
    answer = await reader.read()
    assert b" 200 " not in answer.split(b"\r\n")[0]
    assert (await site.get("/healthz")).status == 200
    writer.close()
