"""What is refused below any handler, or by Tornado itself, has the one form of errors, and the status of HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from uuid import UUID

import pytest
from tornado.httputil import HTTPHeaders

from pairing_server.web.error_form import BARE_REFUSAL
from tests.conftest import CONFIGURATION
from tests.devices import Site
from tests.web.test_http_edges import RawAnswer, chunked, exchange, post

pytestmark = pytest.mark.one_node

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
LOGIN = "/api/auth/login"
CHUNKED = post(LOGIN, "Transfer-Encoding: chunked")
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def check_form(answer: RawAnswer, status: int, code: str) -> None:
    assert (answer.status, answer.error) == (status, code), answer
    body = json.loads(answer.body)
    assert set(body) == {"success", "error", "message", "details"}
    assert body["success"] is False
    headers = HTTPHeaders.parse(answer.head.partition(b"\r\n")[2].decode())
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Date"].endswith(" GMT")
    assert UUID(headers["X-Request-ID"])
    if code == "PAYLOAD_TOO_LARGE":
        assert body["details"]["limit"]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz?" + b"a&" * 5_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET  /healthz  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /heal thz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/3\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a/b?c\r\n\r\n",
        GET + b"no colon\r\n\r\n",
        GET + b"Bad Name: 1\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
        GET + b" folded before any\r\n\r\n",
        GET + b"Content-Length: ten\r\n\r\n",
        GET + b"Content-Length: -1\r\n\r\n",
        GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        GET + b"Transfer-Encoding: gzip\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        CHUNKED + b"no size\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"1" * 100 + b"\r\n",
        CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0\r\nTrailer: 1\r\n\r\n",
        UPGRADE.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
        UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        UPGRADE.replace(b"AAAAAAAAAAAAAAAAAAAAAA==", b"short"),
        UPGRADE.replace(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b""),
    ],
    ids=lambda value: value[-40:].decode("latin-1").encode("unicode_escape").decode(),
)
async def test_what_cannot_be_read_is_refused_in_the_form_of_all_errors(site: Site, request_: bytes) -> None:
    check_form(await exchange(site, request_), 400, "INVALID_REQUEST")


async def test_a_header_that_is_too_large_is_431_with_its_limit(site: Site) -> None:
    for large in (
        GET + b"X-Big: " + b"a" * (CONFIGURATION.header_size + 1024) + b"\r\n\r\n",
        GET + b"X-Many: 1\r\n" * 2_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"a" * (CONFIGURATION.header_size + 1),
    ):
        answer = await exchange(site, large)
        check_form(answer, 431, "PAYLOAD_TOO_LARGE")
        assert json.loads(answer.body)["details"] == {"limit": CONFIGURATION.header_size}


async def test_a_body_that_is_too_large_is_413_on_every_url(site: Site) -> None:
    for path in ("/healthz", "/metrics", "/docs", "/audit", "/nowhere", LOGIN):
        answer = await exchange(site, post(path, "Content-Length: 99999999999"))
        assert answer.status in (413, 405, 404), path
        assert set(json.loads(answer.body)) == {"success", "error", "message", "details"}, path
    endless = CHUNKED + b"100000\r\n" + b"x" * 0x100000 + b"\r\n100000\r\n"
    check_form(await exchange(site, endless), 413, "PAYLOAD_TOO_LARGE")


async def test_another_version_of_the_websocket_is_426_and_names_ours(site: Site) -> None:
    for version in (b"8", b"", b"13, 8"):
        answer = await exchange(site, UPGRADE.replace(b"Version: 13", b"Version: " + version))
        check_form(answer, 426, "INVALID_REQUEST")
        assert b"\r\nsec-websocket-version: 13\r\n" in answer.head.lower()


async def test_methods_that_nobody_knows_are_405_on_every_kind_of_url(site: Site) -> None:
    for path in (
        "/healthz",
        "/metrics",
        "/docs",
        "/docs/init.js",
        "/docs/",
        "/audit",
        "/client/pairing.js",
        "/ws",
        LOGIN,
    ):
        for method in ("BREW", "TRACE", "CONNECT", "PROPFIND"):
            answer = await exchange(site, f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            check_form(answer, 405, "METHOD_NOT_ALLOWED")
            assert b"\r\nAllow: " in answer.head, (method, path)


async def test_http_1_0_is_served_with_and_without_a_host(site: Site) -> None:
    for host in (b"", b"Host: a\r\n"):
        answer = await exchange(site, b"GET /healthz HTTP/1.0\r\n" + host + b"\r\n")
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
        check_form(await exchange(site, b"GET /nowhere HTTP/1.0\r\n" + host + b"\r\n"), 404, "NOT_FOUND")


async def test_a_part_of_a_file_that_there_is_not_is_refused_in_the_same_form(site: Site) -> None:
    request = b"GET /docs/init.js HTTP/1.1\r\nHost: a\r\nRange: bytes=99999999-\r\n\r\n"
    check_form(await exchange(site, request), 416, "INVALID_REQUEST")


async def test_what_is_broken_behind_an_answer_is_not_answered_twice(site: Site) -> None:
    """A second answer would be taken for that to the next request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(post("/api/pairings", "Transfer-Encoding: chunked") + b"no size\r\n")
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"HTTP/1.1 401 " in answers
    writer.close()


async def test_a_broken_request_behind_a_good_one_is_refused(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(GET + b"\r\n" + b"hello\r\n\r\n")
    answers = await reader.read()
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"400"]
    assert BARE_REFUSAL not in answers
    writer.close()


async def test_chunks_that_are_right_are_read(site: Site) -> None:
    answer = await exchange(site, CHUNKED + chunked(b'{"username": "ada"}', 3))
    assert (answer.status, answer.error) == (422, "VALIDATION_ERROR")
