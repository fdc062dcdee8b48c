"""The bounds of the HTTP server, below any handler."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.conftest import CONFIGURATION
from tests.devices import Site

HEADER_SIZE, HEADER_TIMEOUT = CONFIGURATION.header_size, CONFIGURATION.header_timeout
READ_TIMEOUT = CONFIGURATION.read_timeout


async def test_the_servers_bounds_are_ours_and_not_tornados(site: Site) -> None:
    params = site.node.http.conn_params
    assert (params.max_header_size, params.header_timeout) == (16384, 20)
    assert (params.body_timeout, params.max_body_size) == (10, 1024 * 1024)
    assert site.node.http.xheaders is False


async def test_a_header_that_trickles_in_is_cut_after_its_time(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    await writer.drain()
    # A second connection's whole request shows that the first one's bytes have been read by now.
    assert (await site.get("/healthz")).status == 200
    now = site.node.app.now()
    assert site.node.http.cut_slow_headers(now) == 0
    assert site.node.http.cut_slow_headers(now + HEADER_TIMEOUT) == 1
    assert await reader.read() == b""
    writer.close()


async def test_an_idle_connection_is_not_taken_for_a_slow_header(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    now = site.node.app.now()
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


@pytest.mark.parametrize(
    ("path", "status", "ends"),
    [("/healthz", 200, False), ("/api/pairings?limit=x", 401, True), ("/nowhere", 404, True)],
)
async def test_an_answer_after_which_the_connection_ends_says_so(
    site: Site, path: str, status: int, ends: bool
) -> None:
    """A client that is refused before its body has been read must not send the next request on the same connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 %d " % status)
    assert (b"\r\nconnection: close\r\n" in head) == ends
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    if not ends:
        writer.write(request + request.replace(b"Host: a", b"Host: a\r\nConnection: close"))
    assert (await reader.read()).count(b"HTTP/1.1 ") == (0 if ends else 2)
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
    now = site.node.app.now()
    assert site.node.http.cut_slow_headers(now) == 0
    for _ in range(10):
        # Bytes go on coming in, and that prolongs nothing.
        slow.dribble()
        assert await site.ws_token(account, "desktop")
        assert site.node.http.cut_slow_headers(now + 1) == 0
    assert site.node.http.cut_slow_headers(now + HEADER_TIMEOUT) == 500
    assert await slow.told() <= {b""}


async def test_two_hundred_bodies_that_trickle_in_are_cut_and_others_are_served_meanwhile(site: Site) -> None:
    begun = (
        b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: 16000\r\n\r\n{"
    )
    account, in_time, late = await site.account(), Slow(site, begun), Slow(site, begun)
    await in_time.open(100)
    assert await site.ws_token(account, "desktop")
    # Those that begin now have less time.
    site.node.http.conn_params.body_timeout = 0.5
    await late.open(100)
    in_time.dribble()
    assert await site.ws_token(account, "desktop")
    assert in_time.open_ones == 100
    while late.open_ones:
        late.dribble()
        assert await site.ws_token(account, "desktop")
    assert await late.told() <= {b""}


async def test_who_does_not_take_an_answer_is_cut_and_who_takes_it_slowly_is_not(site: Site) -> None:
    http = site.node.http
    asking = socket.socket()
    asking.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(asking, ("127.0.0.1", site.port))
    site.sockets.append(asking)
    # More than the kernel holds.
    await loop.sock_sendall(asking, 20 * b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n")
    while not (waiting := [c for c in http._connections if c.stream.writing()]):
        assert (await site.get("/healthz")).status == 200
    stream = waiting[0].stream

    async def take_some() -> None:
        before = stream._total_write_done_index
        while stream._total_write_done_index == before:
            await loop.sock_recv(asking, 65536)

    now = site.node.app.now()
    assert http.cut_slow_readers(now) == 0
    await take_some()
    assert http.cut_slow_readers(now + READ_TIMEOUT) == 0
    await take_some()
    assert http.cut_slow_readers(now + 2 * READ_TIMEOUT) == 0
    # Nothing is read any more; what the kernel still takes is taken first.
    moment = now + 3 * READ_TIMEOUT
    while http.cut_slow_readers(moment) == 0:
        moment += READ_TIMEOUT
        assert (await site.get("/healthz")).status == 200
    assert stream.closed()
