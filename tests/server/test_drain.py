"""A server that stops: it closes connections so that devices come back, refuses new work, and each refusal says why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from tornado.httpclient import HTTPClientError
from tornado.ioloop import IOLoop

from pairing_server.relay.connection import Connection
from pairing_server.relay.identity import Identity, Peer
from pairing_server.server.server import Node
from pairing_server.websocket.commands import COMMANDS
from tests import leaks
from tests.conftest import CONFIGURATION
from tests.devices import Answer, Site
from tests.relay.wire import LOGGED_IN, Wire


class Stopping:
    """A node, and a connection that has not let go: as long as it stays, the node is stopping."""

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.site = Site(node, port)
        self.wire = Wire()
        now = node.app.now()
        stranger = Identity("somebody", "desktop", "token", "login", None, now + 3600, LOGGED_IN)
        peer = Peer(str(uuid4()), stranger, "192.0.2.1", "192.0.2.1")
        self._last = Connection(peer, self.wire, node.hub.context, COMMANDS, now)
        node.hub.add(self._last)
        self._stopped: asyncio.Future[None] | None = None

    def begin(self) -> None:
        self._stopped = asyncio.ensure_future(self.node.stop())

    async def end(self) -> None:
        """The last connection goes, and so does the node."""
        self.node.hub.remove(self._last, "Connection closed", self.node.app.now())
        if self._stopped is not None:
            await self._stopped


@pytest.fixture
def stopping(io_loop: IOLoop, database_url: str) -> Iterator[Stopping]:
    async def start() -> Stopping:
        node = Node(replace(CONFIGURATION), database_url)
        [(_, port), *_] = await node.start(timers=False)
        return Stopping(node, port)

    found: Stopping = io_loop.run_sync(start)
    yield found

    async def finish() -> None:
        if found._stopped is None:
            found.begin()
        await found.end()
        await found.site.close()
        await leaks.RUN.read_audit(database_url)

    io_loop.run_sync(finish)


def refused(answer: Answer) -> bool:
    return (answer.status, answer.error) == (503, "UNAVAILABLE") and int(answer.headers["Retry-After"]) >= 1


async def test_while_it_stops_readyz_says_so_and_nothing_new_begins(stopping: Stopping) -> None:
    site = stopping.site
    account = await site.account()
    code = await site.code(account, "desktop-session-1")
    token = await site.ws_token(account, "desktop")
    assert (await site.get("/readyz")).status == 200
    stopping.begin()
    ready = await site.get("/readyz")
    assert refused(ready) and ready.body["details"] == {"reasons": ["draining"]}
    assert refused(
        await site.post("/api/generate-pair-code", {"desktop_session_id": "desktop-2"}, account.token)
    )
    assert refused(await site.redeem(account, code, "mobile-session-1"))
    assert refused(await site.post("/api/auth/ws-token", {}, account.token))
    with pytest.raises(HTTPClientError) as upgrade:
        await site.open(token)
    assert upgrade.value.code == 503
    # It lives, tells what it does, and answers questions.
    assert (await site.get("/healthz")).status == 200
    assert b"pairing_draining 1.0" in (await site.get("/metrics")).body
    assert (await site.get("/api/pairings", account.token)).status == 200


async def test_who_is_connected_is_closed_both_of_a_pair(stopping: Stopping) -> None:
    """1012 goes to those who use an addition; the original clients come back only after an unclean close."""
    desktop, mobile = await stopping.site.pair()
    desktop.socket.send({"type": "channel_message", "payload": {}, "id": 1})
    await desktop.socket.expect("ack")
    waiting = await stopping.site.connect(await stopping.site.account(), "desktop")
    stopping.begin()
    assert [await socket.closed() for socket in (desktop.socket, mobile.socket, waiting)] == [
        1012,
        None,
        None,
    ]
    assert stopping.wire.closed == (1006, "")
    assert desktop.socket.connection.close_reason == "server restarts"
    assert (await stopping.site.get("/readyz")).status == 503


async def test_once_the_last_has_gone_nobody_listens_and_the_log_has_it(
    stopping: Stopping, database_url: str
) -> None:
    account = await stopping.site.account()
    await stopping.site.pair(account)
    stopping.begin()
    assert (await stopping.site.get("/readyz")).status == 503
    await stopping.end()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", stopping.site.port)
    rows = "\n".join(await leaks.audit_rows(database_url))
    for event in ("system.stopping", "ws.disconnected", "channel.left"):
        assert event in rows
