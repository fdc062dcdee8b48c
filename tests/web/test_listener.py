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


class Slow:
    """Connections that begin a request and go on byte by byte."""

    def __init__(self, site: Site, begun: bytes) -> None:
        self._site = site
        self._begun = begun
        self._writers: list[asyncio.StreamWriter] = []
        self._ends: list[asyncio.Future[bytes]] = []

    async def open(self, count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._site.port)
            self._site.sockets.append(writer)
            self._writers.append(writer)
            self._ends.append(asyncio.ensure_future(reader.read()))
            writer.write(self._begun)

    def dribble(self) -> None:
        """One more byte of each that has not been closed."""
        for writer, end in zip(self._writers, self._ends, strict=True):
            if not end.done():
                writer.write(b"x")

    @property
    def open_ones(self) -> int:
        return sum(not end.done() for end in self._ends)

    async def told(self) -> set[bytes]:
        """All that they were answered, once each is closed."""
        found = await asyncio.gather(*self._ends, return_exceptions=True)
        return {answer for answer in found if isinstance(answer, bytes)}


async def test_five_hundred_headers_that_trickle_in_are_cut_and_others_are_served_meanwhile(
    site: Site,
) -> None:
    slow = Slow(site, b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    await slow.open(500)
    account = await site.account()
    assert await site.ws_token(account, "desktop")
    now = site.node.edge.now()
    assert site.node.http.cut_slow_headers(now) == 0
    for _ in range(10):
        # Bytes go on coming in, and that prolongs nothing.
        slow.dribble()
        assert await site.ws_token(account, "desktop")
        assert site.node.http.cut_slow_headers(now + 1) == 0
    assert site.node.http.cut_slow_headers(now + HEADER_TIMEOUT) == 500
    assert await slow.told() <= {b""}


async def test_two_hundred_bodies_that_trickle_in_are_cut_and_others_are_served_meanwhile(site: Site) -> None:
    site.node.http.conn_params.body_timeout = 0.5
    account = await site.account()
    slow = Slow(
        site,
        b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: 16000\r\n\r\n{",
    )
    await slow.open(200)
    served = 0
    while slow.open_ones:
        slow.dribble()
        assert await site.ws_token(account, "desktop")
        served += 1
    assert served > 1
    assert await slow.told() <= {b""}
