"""How many connections there may be: of one address, and of the process's descriptors."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from pairing_server.security.addresses import parse_networks
from pairing_server.web import descriptors, http_server
from pairing_server.web.descriptors import Descriptors
from tests.conftest import StartNode
from tests.devices import Site
from tests.websocket.raw import RawSocket
from tests.websocket.raw_pair import until

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
BEGUN = b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


class Client:
    """A plain connection, from that address of the loopback interface."""

    def __init__(self, site: Site, address: str = "127.0.0.1") -> None:
        self._site = site
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.bind((address, 0))
        site.sockets.append(self.socket)

    async def send(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self.socket.getsockname()[1] == 0 or not self._connected():
            await loop.sock_connect(self.socket, ("127.0.0.1", self._site.port))
        await loop.sock_sendall(self.socket, data)

    def _connected(self) -> bool:
        try:
            return bool(self.socket.getpeername())
        except OSError:
            return False

    async def answered(self) -> bool:
        """Whether an answer comes, and not the end of the connection."""
        try:
            return (await asyncio.get_running_loop().sock_recv(self.socket, 4096)).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False


async def idle(site: Site, count: int, address: str = "127.0.0.1") -> list[Client]:
    """Connections that have had an answer, and wait."""
    clients = [Client(site, address) for _ in range(count)]
    for client in clients:
        await client.send(REQUEST)
        assert await client.answered()
    return clients


@pytest.fixture
def narrow(start_node: StartNode) -> Site:
    return start_node(http_connections_per_address=3)


async def test_of_one_address_the_longest_idle_gives_way(narrow: Site) -> None:
    clients = await idle(narrow, 3, "127.0.0.2")
    await clients[0].send(REQUEST)
    assert await clients[0].answered()
    [fourth] = await idle(narrow, 1, "127.0.0.2")
    assert not await clients[1].answered(), "it has waited longest"
    for client in (clients[0], clients[2], fourth):
        await client.send(REQUEST)
        assert await client.answered()


async def test_one_that_has_sent_nothing_yet_is_idle_too(narrow: Site) -> None:
    silent = [Client(narrow, "127.0.0.2") for _ in range(30)]
    for client in silent:
        await client.send(b"")
    assert await idle(narrow, 1, "127.0.0.2")
    assert len(narrow.node.http._connections) == 3


async def test_one_whose_request_is_under_way_stays_and_the_new_one_is_closed(narrow: Site) -> None:
    begun = [Client(narrow, "127.0.0.2") for _ in range(3)]
    for client in begun:
        await client.send(BEGUN)
    assert await idle(narrow, 1), "others are served"
    new = Client(narrow, "127.0.0.2")
    await new.send(REQUEST)
    assert not await new.answered()
    assert len(narrow.node.http._connections) == 4
    assert narrow.node.http.turned_away == {"address": 1}


async def test_the_bound_is_that_of_each_address_and_a_socket_counts_no_more_once_it_is_a_websocket(
    narrow: Site,
) -> None:
    account = await narrow.account()
    for _ in range(5):
        socket_ = await narrow.open(await narrow.ws_token(account, "desktop"))
        await socket_.expect("connected")
    clients = [*await idle(narrow, 3, "127.0.0.2"), *await idle(narrow, 3, "127.0.0.3")]
    for client in clients:
        await client.send(REQUEST)
        assert await client.answered()


async def test_a_trusted_proxy_has_as_many_as_it_likes(narrow: Site) -> None:
    trusted = parse_networks(["127.0.0.2"])
    narrow.node.reload(replace(narrow.node.config, trusted_proxies=trusted))
    for client in await idle(narrow, 8, "127.0.0.2"):
        await client.send(REQUEST)
        assert await client.answered()


def lowest() -> int:
    """The number that the next descriptor gets."""
    number = os.dup(0)
    os.close(number)
    return number


@asynccontextmanager
async def almost_full(site: Site, websockets: int, requests: int) -> AsyncIterator[None]:
    """So many descriptors are left for WebSockets, and for requests."""
    app, base = site.node.app, lowest()
    whole, app.descriptors = app.descriptors, Descriptors(base + websockets, base + requests)
    yield
    app.descriptors = whole


async def test_a_websocket_keeps_its_number_so_the_reserve_holds(site: Site) -> None:
    token = await site.ws_token(await site.account(), "desktop")
    site.client.close()
    raws = [RawSocket() for _ in range(8)]
    async with almost_full(site, 10, 14):
        statuses: list[bytes] = []
        while b"503" not in statuses:
            head = await raws[len(statuses)].open(site, f"?token={token}")
            statuses.append(head.split(b" ")[1])
        # Each has a descriptor at either end; the database's connections may take some, too.
        taken = len(statuses) - 1
        assert 3 <= taken <= 5
        assert statuses[:taken] == taken * [b"101"]
        ready = Client(site)
        await ready.send(REQUEST.replace(b"healthz", b"readyz"))
        assert await ready.answered(), "a probe is answered"
    assert len(site.node.hub.connections) == taken


async def test_idle_connections_give_way_where_descriptors_are_few(site: Site) -> None:
    clients = await idle(site, 4)
    http = site.node.http
    async with almost_full(site, 1, 1):
        [new] = await idle(site, 1)
        assert not await clients[0].answered()
        assert not http.turned_away
    assert new.socket.fileno() > 0


async def test_with_none_left_a_connection_is_closed_and_told_of_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    joined = await site.connect(await site.account(), "desktop")
    site.client.close()
    await until(lambda: not site.node.http._connections)
    async with almost_full(site, 0, 0):
        for _ in range(3):
            client = Client(site)
            await client.send(REQUEST)
            assert not await client.answered()
    assert await joined.pending() == [], "who is there stays"
    with caplog.at_level(logging.WARNING):
        site.node.http.cut_slow(site.node.app.now())
        site.node.http.cut_slow(site.node.app.now())
    [told] = [record for record in caplog.records if record.name.endswith("http_server")]
    assert (told.message, told.__dict__["count"]) == ("connections closed at once", 3)


@pytest.fixture
def limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_process_without_descriptors_pauses_accepting_and_raises_nothing(
    site: Site,
    limit: tuple[int, int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "PAUSE_SECONDS", 0.05)
    client = Client(site)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest(), limit[1]))
    await client.send(REQUEST)
    await until(lambda: site.node.http.turned_away["descriptors"] > 0)
    assert site.node.http.turned_away["descriptors"] <= 2
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert await client.answered()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_the_soft_limit_is_raised_to_the_hard_one_and_a_part_is_reserved(limit: tuple[int, int]) -> None:
    hard = limit[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    assert descriptors.of_process() == Descriptors(192, 208)
    descriptors.raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
