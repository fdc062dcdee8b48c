"""Seals that are posted to a URL, to a real receiver: delivered, refused, away, slow, and sent again."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from pairing_server.audit.seals import NOTHING, Seal, seal_from_line
from pairing_server.audit.seals.memory import SealMemory
from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.server.server import Node
from tests.audit.sealing import record
from tests.conftest import StartNode
from tests.devices import Site
from tests.logged import logged


class Receiver:
    """Takes POSTs on the loopback, and answers as the test sets it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[Any] = []
        self.status = 204
        self.location = ""
        # While it is not set, nobody is answered.
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = asyncio.Event()
        # Bound for as long as it lives, so that nobody else gets the port while it is away.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self.open()

    def open(self) -> None:
        self._server = HTTPServer(Application([(r"/seals", _Seals, {"receiver": self})]))
        self._server.add_sockets(bind_sockets(self.port, "127.0.0.1"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/seals"

    @property
    def numbers(self) -> list[int]:
        """Of the seals that have come."""
        return [json.loads(body)["seal"] for body in self.bodies]

    async def close(self) -> None:
        self.answers.set()
        self._server.stop()
        await self._server.close_all_connections()

    def release(self) -> None:
        self._held.close()


class _Seals(RequestHandler):
    def initialize(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def post(self) -> None:
        receiver = self._receiver
        receiver.asked.set()
        await receiver.answers.wait()
        self.set_status(receiver.status)
        if receiver.location:
            self.set_header("Location", receiver.location)
        if receiver.status < 300:
            receiver.bodies.append(self.request.body)
            receiver.headers.append(self.request.headers)
        self.finish()


@pytest.fixture
def receiver(io_loop: IOLoop) -> Iterator[Receiver]:
    async def make() -> Receiver:
        return Receiver()

    made: Receiver = io_loop.run_sync(make)
    yield made
    io_loop.run_sync(made.close)
    made.release()


@pytest.fixture
def site(start_node: StartNode, receiver: Receiver, tmp_path: Path) -> Site:
    """A node that posts its seals to the receiver. A test makes them."""
    return start_node(audit_seal_copy=receiver.url, data_dir=tmp_path)


async def seal(site: Site, *actors: str) -> list[int]:
    """Record something, and seal it; the numbers of the new seals."""
    await record(site.node, *actors)
    return [made.number for made in await site.node.services.audit.sealer.seal(system(utcnow()))]


async def test_each_seal_is_delivered_once_as_a_line_of_json_that_verifies(
    site: Site, receiver: Receiver
) -> None:
    for number, name in enumerate(("alice", "bob", "carol"), 1):
        assert await seal(site, name) == [number]
    await site.node.services.audit.sealer.copy_outside(utcnow())
    assert receiver.numbers == [1, 2, 3]
    assert {headers["Content-Type"] for headers in receiver.headers} == {"application/json"}
    before = None
    for body in receiver.bodies:
        assert body.endswith(b"\n") and body.count(b"\n") == 1
        told = seal_from_line(json.loads(body))
        assert told.public_key == site.node.services.audit.sealer.key.public
        assert before is None or told.previous == before.digest
        before = told


@pytest.mark.parametrize("status", [500, 503, 429, 401, 302])
async def test_a_refused_seal_is_sent_again_and_logged(
    site: Site, receiver: Receiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = status
    receiver.location = receiver.url if status == 302 else ""
    assert await seal(site, "alice") == [1]
    assert await seal(site, "bob") == [2]
    assert receiver.bodies == [], "nobody is followed elsewhere"
    assert (
        logged(caplog, "audit seal not copied outside", "number", "error")
        == [(1, f"the receiver answered {status}")] * 2
    )
    receiver.status, receiver.location = 200, ""
    assert await seal(site, "carol") == [3]
    assert receiver.numbers == [1, 2, 3], "in their order, none twice"


async def test_sealing_goes_on_without_the_receiver_which_gets_the_seal_when_it_is_back(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    await receiver.close()
    assert await seal(site, "alice") == [1]
    assert logged(caplog, "audit seal not copied outside", "number") == [(1,)]
    receiver.open()
    await site.node.services.audit.sealer.copy_outside(utcnow())
    assert receiver.numbers == [1]


async def test_a_seal_that_is_not_answered_times_out_and_is_sent_again(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.clear()
    sealing = asyncio.ensure_future(seal(site, "alice"))
    await receiver.asked.wait()
    # Devices notice nothing of it.
    desktop, mobile = await site.pair()
    desktop.socket.send({"type": "channel_message", "payload": {"n": 1}})
    assert (await mobile.socket.expect("channel_message"))["payload"] == {"n": 1}
    assert await sealing == [1]
    failures = logged(caplog, "audit seal not copied outside", "number", "error")
    assert failures == [(1, "the receiver did not answer")]
    receiver.answers.set()
    assert await seal(site, "bob") == [2]
    # It may have come the first time, too: who receives them knows a seal by its number.
    assert list(dict.fromkeys(receiver.numbers)) == [1, 2]


async def test_copied_seals_are_remembered_across_restarts(
    site: Site, receiver: Receiver, database_url: str, tmp_path: Path
) -> None:
    assert await seal(site, "alice") == [1]
    another = Node(site.node.config, database_url)
    try:
        await another.services.audit.sealer.copy_outside(utcnow())
    finally:
        await another.release()
    assert receiver.numbers == [1]


def test_what_cannot_be_remembered_leaves_no_other_file_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = SealMemory(tmp_path)
    memory.remember(_SEAL)
    memory.note_copied(6)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1, hard)
    )  # as a disk on which a file can be made, and nothing written
    try:
        memory.remember(replace(_SEAL, number=8))
        memory.miss(_SEAL)
        memory.note_copied(17)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caplog.messages == ["audit seal not remembered"] * 3
    assert {path.name for path in tmp_path.iterdir()} == {"audit-last-seal", "audit-copied-seal"}
    assert (memory.newest(), memory.copied(), memory.lost()) == (_SEAL, 6, [])


def test_a_seal_that_was_lost_stays_known_until_the_log_goes_back(tmp_path: Path) -> None:
    memory, other = SealMemory(tmp_path), replace(_SEAL, node="other")
    memory.remember(_SEAL)
    memory.miss(_SEAL)
    memory.remember(other)
    memory.remember(replace(_SEAL, number=8))
    assert memory.known()[7] == _SEAL.digest.hex()
    memory.go_back(other, 7)
    assert memory.known() == {7: other.digest.hex()}


_SEAL = Seal(7, 1, 100, 200, (), NOTHING, "2026-11-28T21:00:00.000000Z", "node", b"k" * 32, b"s" * 64)
