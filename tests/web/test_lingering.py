"""Sockets that are closed for writing: what is read of them, and for how long."""

from __future__ import annotations

import asyncio
import socket

import pytest

from pairing_server.web import lingering
from pairing_server.web.lingering import LingeringSockets
from tests.devices import Site
from tests.websocket.raw_pair import until

pytestmark = pytest.mark.one_node


async def closing(sockets: LingeringSockets) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The client of a socket that lingers."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.send(b"last words")
    sockets.close(ours)
    return await asyncio.open_connection(sock=theirs)


async def test_the_client_gets_all_and_the_end_and_its_own_end_is_waited_for(io_loop: object) -> None:
    sockets = LingeringSockets()
    reader, writer = await closing(sockets)
    writer.write(b"something that was under way")
    assert await reader.read() == b"last words"
    assert len(sockets) == 1
    writer.close()
    await until(lambda: len(sockets) == 0)


async def test_after_its_time_the_socket_is_closed(io_loop: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "LINGER_SECONDS", 0.01)
    sockets = LingeringSockets()
    reader, writer = await closing(sockets)
    assert await reader.read() == b"last words"
    await until(lambda: len(sockets) == 0)
    writer.close()


async def test_after_its_bytes_the_socket_is_closed(io_loop: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "DROPPED_BYTES", 1000)
    sockets = LingeringSockets()
    _, writer = await closing(sockets)
    writer.write(b"x" * 1000)
    await until(lambda: len(sockets) == 0)
    writer.close()


async def test_of_more_than_so_many_the_newest_do_not_linger(
    io_loop: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "MOST_SOCKETS", 2)
    sockets = LingeringSockets()
    writers = [(await closing(sockets))[1] for _ in range(4)]
    assert len(sockets) == 2
    sockets.close_all()
    assert len(sockets) == 0
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /api/generate-pair-code HTTP/1.1\r\nContent-Length: 1000000", 401),
        ("POST /api/auth/login HTTP/1.1\r\nContent-Length: 3000000", 413),
        ("GET /ws HTTP/1.1\r\nContent-Length: 1000000", 400),
        ("POST /nowhere HTTP/1.1\r\nContent-Length: 1000000", 404),
        ("POST /api/auth/login HTTP/1.1\r\nOrigin: https://evil.io\r\nContent-Length: 1000000", 403),
        ("POST /api/auth/login HTTP/1.1\r\nContent-Length: x", 400),
    ],
)
async def test_a_refusal_before_the_body_is_read_arrives(site: Site, head: str, status: int) -> None:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    site.sockets.append(client)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", site.port))
    await loop.sock_sendall(client, f"{head}\r\nHost: a\r\n\r\n".encode() + 900_000 * b"x")
    answer = b""
    while data := await loop.sock_recv(client, 65536):
        answer += data
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer


async def test_an_answer_to_a_whole_request_closes_at_once(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b" 200 " in await reader.read()
    assert len(site.node.app.lingering) == 0
    writer.close()
