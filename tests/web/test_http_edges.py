"""What every endpoint has in common: the form of errors, bodies and their bounds, methods, addresses."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest

from pairing_server.security.addresses import parse_networks
from tests.conftest import StartNode
from tests.devices import Answer, Site

pytestmark = pytest.mark.one_node

KIB_16 = 16 * 1024
LOGIN = "/api/auth/login"

# Every URL that speaks JSON, with the methods it takes.
ENDPOINTS = {
    "/api/auth/register": ["POST"],
    LOGIN: ["POST"],
    "/api/auth/ws-token": ["POST"],
    "/api/auth/ws-token-mobile": ["POST"],
    "/api/generate-pair-code": ["POST"],
    "/api/pair-device": ["POST"],
    "/api/pairings": ["GET"],
    f"/api/pairings/{uuid4()}": ["DELETE"],
    "/api/auth/logout": ["POST"],
    "/api/account": ["DELETE"],
    "/api/logins": ["GET"],
    "/api/logins/a-login": ["DELETE"],
    "/api/lockouts": ["GET"],
    "/api/lockouts/redeem_user/ada": ["DELETE"],
    "/api/audit": ["GET"],
    "/healthz": ["GET"],
    "/readyz": ["GET"],
    "/openapi.json": ["GET"],
}


class RawAnswer(NamedTuple):
    status: int
    head: bytes
    body: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


def allowed(methods: list[str]) -> str:
    return ", ".join([*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])])


async def exchange(site: Site, request: bytes) -> RawAnswer:
    """What comes back for these bytes, until the server closes or the declared body is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")),
            0,
        )
        return RawAnswer(int(head.split(b" ")[1]), head, await reader.readexactly(length))
    finally:
        writer.close()


def post(path: str, *lines: str, body: bytes = b"") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: pairing.test", "Content-Type: application/json", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def chunked(body: bytes, size: int) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def padded(size: int) -> bytes:
    """A good login of exactly that many bytes."""
    shell = len(json.dumps({"username": "ada", "password": "wrong password", "extra": ""}))
    extra = "x" * (size - shell)
    return json.dumps({"username": "ada", "password": "wrong password", "extra": extra}).encode()


def check_error(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.error) == (status, code), answer
    assert set(answer.body) == {"success", "error", "message", "details"}
    assert answer.body["success"] is False
    assert answer.body["message"]
    assert isinstance(answer.body["details"], dict)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert UUID(answer.headers["X-Request-ID"])


# The form of answers


async def test_every_failure_has_one_form(site: Site) -> None:
    token = (await site.account()).token
    answers = [
        (await site.post(LOGIN, b"{"), 400, "INVALID_REQUEST"),
        (await site.get("/api/pairings"), 401, "UNAUTHORIZED"),
        (await site.get("/api/pairings", "nonsense"), 401, "INVALID_TOKEN"),
        (await site.get("/api/audit", token), 403, "FORBIDDEN"),
        (await site.get("/api/pairings", token, Origin="https://evil.io"), 403, "ORIGIN_NOT_ALLOWED"),
        (await site.get("/nothing/here"), 404, "NOT_FOUND"),
        (await site.call("DELETE", LOGIN), 405, "METHOD_NOT_ALLOWED"),
        (await site.post(LOGIN, b"x" * (KIB_16 + 1)), 413, "PAYLOAD_TOO_LARGE"),
        (
            await site.call("POST", LOGIN, b"a=b", None, {"Content-Type": "text/plain"}),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (await site.post(LOGIN, {}), 422, "VALIDATION_ERROR"),
    ]
    for answer, status, code in answers:
        check_error(answer, status, code)
    assert len({answer.headers["X-Request-ID"] for answer, _, _ in answers}) == len(answers)


async def test_a_success_has_a_request_id_and_is_kept_by_no_cache(site: Site) -> None:
    answer = await site.get("/healthz")
    assert answer.status == 200
    assert UUID(answer.headers["X-Request-ID"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_unknown_url_is_404_for_any_method(site: Site) -> None:
    for path in (
        "/",
        "/api",
        "/api/auth/login/",
        "/API/auth/login",
        "/api/pairings/1",
        "/%00",
        "/..%2f..%2fetc",
    ):
        for method, body in (("GET", None), ("POST", b"{"), ("DELETE", None), ("PUT", b"x")):
            check_error(await site.call(method, path, body), 404, "NOT_FOUND")


async def test_a_wrong_method_is_405_and_told_the_right_ones(site: Site) -> None:
    token = (await site.account()).token
    for path, methods in ENDPOINTS.items():
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if method in methods:
                continue
            body = b"{}" if method in ("POST", "PUT", "PATCH") else None
            answer = await site.call(method, path, body, token)
            check_error(answer, 405, "METHOD_NOT_ALLOWED")
            assert answer.headers["Allow"] == allowed(methods), (method, path)


async def test_a_method_nobody_knows_is_405(site: Site) -> None:
    for request in (b"BREW /healthz HTTP/1.1\r\nHost: a\r\n\r\n", post(LOGIN).replace(b"POST", b"BREW", 1)):
        answer = await exchange(site, request)
        assert (answer.status, answer.error) == (405, "METHOD_NOT_ALLOWED")


async def test_options_tells_the_methods_and_asks_for_no_token(site: Site) -> None:
    for path, methods in ENDPOINTS.items():
        answer = await site.call("OPTIONS", path)
        assert (answer.status, answer.headers["Allow"]) == (204, allowed(methods)), path


async def test_head_answers_as_get_does_without_the_body(site: Site) -> None:
    token = (await site.account()).token
    for path, methods in ENDPOINTS.items():
        answer = await site.call("HEAD", path, None, token)
        if "GET" in methods:
            assert answer.status == (await site.get(path, token)).status, path
        else:
            assert answer.status == 405, path
        assert answer.body == b""


# Bodies


@pytest.mark.parametrize("path", [LOGIN, "/api/pair-device"])
async def test_what_is_no_json_object_is_400(site: Site, path: str) -> None:
    token = (await site.account()).token
    bodies = [
        *(b"{", b"nonsense", b"[]", b'[{"username": "ada"}]', b"null", b'"text"', b"7", b"true"),
        *(b'{"username": NaN}', b'{"username": Infinity}', b'{"extra": [-Infinity]}'),
        b'{"username": "ada", "username": "bob", "password": "wrong password"}',
        b'{"extra": {"a": 1, "a": 2}}',
        b'{"username": "\\ud800", "password": "wrong password"}',
        b'{"\\udfff": 1}',
        b"[" * 10_000,
        b'{"a":' * 3_000,
        b'{"username": "\xff"}',
        b'{"username": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        json.dumps({"username": "ada"}).encode("utf-16"),
        b'{"extra": ' + b"9" * 5000 + b"}",
        b'{"username": "ada"} {}',
        b'{"username": "a\x00b"}',
    ]
    for body in bodies:
        answer = await site.post(path, body, token)
        assert (answer.status, answer.error) == (400, "INVALID_REQUEST"), body[:40]
    check_error(answer, 400, "INVALID_REQUEST")
    assert (await site.get("/healthz")).status == 200


async def test_an_empty_body_is_an_empty_object(site: Site) -> None:
    answer = await site.post(LOGIN, b"")
    assert (answer.status, set(answer.body["details"]["fields"])) == (422, {"username", "password"})


async def test_unknown_fields_are_ignored(site: Site) -> None:
    account = await site.account()
    body = {"desktop_session_id": "desktop-session", "platform": "linux", "nested": {"a": [1]}, "": None}
    assert (await site.post("/api/generate-pair-code", body, account.token)).status == 200


async def test_another_media_type_is_415(site: Site) -> None:
    good = padded(200)
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", ""):
        answer = await site.call("POST", LOGIN, good, None, {"Content-Type": media_type})
        check_error(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    for media_type in (
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=UTF-8",
    ):
        answer = await site.call("POST", LOGIN, good, None, {"Content-Type": media_type})
        assert answer.status == 401, media_type


async def test_a_body_of_16_kib_is_read_and_one_byte_more_is_413(site: Site) -> None:
    assert (await site.post(LOGIN, padded(KIB_16))).error == "UNAUTHORIZED"
    answer = await site.post(LOGIN, padded(KIB_16 + 1))
    check_error(answer, 413, "PAYLOAD_TOO_LARGE")
    assert answer.body["details"] == {"limit": KIB_16, "size": KIB_16 + 1}
    # Even one that is far too long: the client sees the answer instead of a broken pipe.
    check_error(await site.post(LOGIN, b"x" * 900_000), 413, "PAYLOAD_TOO_LARGE")


async def test_a_chunked_body_has_the_same_bound(site: Site) -> None:
    header = "Transfer-Encoding: chunked"
    exact = await exchange(site, post(LOGIN, header, body=chunked(padded(KIB_16), 1000)))
    assert (exact.status, exact.error) == (401, "UNAUTHORIZED")
    for size in (KIB_16 + 1, 500_000):
        answer = await exchange(site, post(LOGIN, header, body=chunked(padded(size), 5000)))
        assert (answer.status, answer.error) == (413, "PAYLOAD_TOO_LARGE"), size


async def test_a_declared_length_beyond_all_measure_is_refused_before_a_byte_of_it(site: Site) -> None:
    answer = await exchange(site, post(LOGIN, "Content-Length: 100000000"))
    assert (answer.status, answer.error) == (413, "PAYLOAD_TOO_LARGE")
    assert json.loads(answer.body)["details"] == {"limit": KIB_16, "size": 100_000_000}
    assert b"Connection: close" in answer.head
    assert (await site.get("/healthz")).status == 200


async def test_endless_chunks_are_cut_off(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(post(LOGIN, "Transfer-Encoding: chunked", body=chunked(b"x" * 1_200_000, 60_000)))
    with suppress(ConnectionError):
        assert (await reader.read()).startswith(b"HTTP/1.1 413")  # and the server has closed
    writer.close()
    assert (await site.get("/healthz")).status == 200


async def test_a_body_or_a_request_that_does_not_come_is_not_waited_for(own_site: Site) -> None:
    # The times themselves are checked in test_http_server.py; here they are short.
    own_site.node.http.conn_params.body_timeout = 0.05
    own_site.node.http.conn_params.header_timeout = 0.05
    for begun in (post(LOGIN, "Content-Length: 100", body=b'{"username": '), b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", own_site.port)
        writer.write(begun)
        assert await reader.read() == b""
        writer.close()


async def test_requests_with_two_readings_are_refused(site: Site) -> None:
    for lines in (
        ("Content-Length: 200", "Content-Length: 10"),
        ("Content-Length: 200", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: +200",),
        ("Content-Length: 0xc8",),
        ("Content-Length: " + "9" * 5000,),
        ("Content-Length: 200", "X-Folded: a", " b"),
    ):
        # Without the body: the head is refused, and what is sent behind it would meet a closed connection.
        answer = await exchange(site, post(LOGIN, *lines, body=b""))
        assert answer.status == 400, lines
    assert (await site.get("/healthz")).status == 200


# Addresses


@pytest.fixture
def proxied(start_node: StartNode) -> Site:
    return start_node(trusted_proxies=parse_networks(["127.0.0.1", "10.0.0.0/8"]))


async def seen_address(site: Site, *forwarded_for: str) -> str:
    """The address that the audit log has for a failed login that came with these headers."""
    lines = [f"X-Forwarded-For: {value}" for value in forwarded_for]
    body = json.dumps({"username": "nobody", "password": "wrong password"}).encode()
    lines += ["X-Real-Ip: 192.0.2.99", "Forwarded: for=192.0.2.99", f"Content-Length: {len(body)}"]
    assert (await exchange(site, post(LOGIN, *lines, body=body))).status == 401
    admin = await site.account(role="admin")
    answer = await site.get("/api/audit?event=auth.login&limit=1", admin.token)
    return str(answer.body["events"][0]["address"])


async def test_forwarding_headers_are_ignored_without_trusted_proxies(site: Site) -> None:
    assert await seen_address(site, "203.0.113.7") == "127.0.0.1"


async def test_the_client_is_the_right_most_hop_that_is_no_trusted_proxy(proxied: Site) -> None:
    assert await seen_address(proxied) == "127.0.0.1"
    assert await seen_address(proxied, "203.0.113.7") == "203.0.113.7"
    assert await seen_address(proxied, "192.0.2.1, 203.0.113.7, 10.1.2.3") == "203.0.113.7"
    assert await seen_address(proxied, "192.0.2.1, 203.0.113.7", "10.1.2.3") == "203.0.113.7"
    assert await seen_address(proxied, "2001:db8::7") == "2001:db8::7"
    assert await seen_address(proxied, "203.0.113.7, nonsense") == "127.0.0.1"
