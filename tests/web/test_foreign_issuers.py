"""Access tokens of foreign issuers over HTTP, with real key sets: a file, and a URL on this machine.

What makes a single token good or bad: tests/security.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pairing_server.clock import utcnow
from pairing_server.security.issuers import Issuer
from tests.conftest import StartNode
from tests.devices import Account, Site
from tests.security.provider import AUDIENCE, ISSUER, Provider, elliptic_key, rsa_key

ALGORITHMS = ("RS256", "ES256", "EdDSA")


class KeyServer:
    """Serves the provider's key set on a loopback port of its own."""

    def __init__(self, provider: Provider) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                moved = outer.moved_to is not None
                self.send_response(302 if moved else outer.status)
                if moved:
                    self.send_header("Location", str(outer.moved_to))
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                """Nothing: the tests look at `requests`."""

        self.provider = provider
        self.body = provider.jwks()
        self.status = 200
        self.moved_to: str | None = None
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks.json"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def provider() -> Provider:
    return Provider(k1=elliptic_key())


@pytest.fixture
def keys(provider: Provider) -> Iterator[KeyServer]:
    server = KeyServer(provider)
    yield server
    server.stop()


@pytest.fixture
def by_url(start_node: StartNode, keys: KeyServer) -> Site:
    return start_node(issuers=(Issuer(ISSUER, AUDIENCE, ALGORITHMS, keys.url),))


@pytest.fixture
def key_file(provider: Provider, tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    put(path, provider)
    return path


def put(path: Path, provider: Provider) -> None:
    path.write_bytes(provider.jwks())


@pytest.fixture
def by_file(start_node: StartNode, key_file: Path) -> Site:
    return start_node(issuers=(Issuer(ISSUER, AUDIENCE, ALGORITHMS, str(key_file)),))


def token(provider: Provider, kid: str | None = "k1", **claims: Any) -> str:
    return provider.token(kid, now=utcnow(), **claims)


def account(provider: Provider, sub: str = "ada") -> Account:
    return Account(f"{ISSUER}|{sub}", sub, token(provider, sub=sub))


async def status(site: Site, access_token: str) -> int:
    return (await site.get("/api/pairings", access_token)).status


async def test_a_foreign_user_pairs_like_any_other(by_url: Site, provider: Provider) -> None:
    desktop, mobile = await by_url.pair(account(provider))
    mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"a": 1}})
    assert (await desktop.socket.expect("channel_message"))["payload"] == {"a": 1}


async def test_a_token_with_eighty_groups_and_a_jku_is_good_and_the_jku_is_not_followed(
    by_url: Site, provider: Provider, keys: KeyServer
) -> None:
    groups = [str(UUID(int=number)) for number in range(80)]
    elsewhere = f"http://127.0.0.1:{keys.server.server_address[1]}/elsewhere"
    evil = Provider(k1=elliptic_key())
    headers: dict[str, object] = {"jku": elsewhere, "x5u": elsewhere, "x5c": ["A" * 4_000]}
    large = provider.token(now=utcnow(), headers=headers, groups=groups)
    assert len(large) > 8_000
    assert await status(by_url, large) == 200
    assert await status(by_url, evil.token(now=utcnow(), headers=headers, groups=groups)) == 401
    assert keys.requests == ["/jwks.json"]


async def test_a_foreign_subject_is_the_issuer_and_its_sub(by_file: Site, provider: Provider) -> None:
    ws_token = await by_file.ws_token(account(provider), "mobile")
    claims = by_file.node.backend.tokens.verify_ws(ws_token, utcnow())
    assert (claims.subject, claims.device_type) == (f"{ISSUER}|ada", "mobile")
    [issued] = await by_file.events("auth.token_issued")
    assert issued["actor"] == f"{ISSUER}|ada"


async def test_one_foreign_users_code_is_not_anothers(by_file: Site, provider: Provider) -> None:
    ada, grace = account(provider, "ada"), account(provider, "grace")
    code = await by_file.code(ada, "desktop-session")
    assert (await by_file.redeem(grace, code, "graces-mobile")).error == "INVALID_CODE"
    assert (await by_file.redeem(ada, code, "adas-mobile")).status == 200


async def test_all_three_algorithms_are_taken(by_file: Site, key_file: Path) -> None:
    several = Provider(rsa=rsa_key(), ec=elliptic_key(), ed=Ed25519PrivateKey.generate())
    put(key_file, several)
    for kid in several.keys:
        assert await status(by_file, token(several, kid)) == 200, kid


async def test_a_bad_foreign_token_is_401_and_recorded(by_file: Site, provider: Provider) -> None:
    forged = Provider(k1=elliptic_key())
    for reason, bad in (
        ("signature", token(forged)),
        ("aud", token(provider, aud="https://elsewhere.example.com")),
        ("iss", token(provider, iss="https://elsewhere.example.com/")),
        ("expired", token(provider, iat=1_700_000_000, exp=1_700_000_600)),
        ("kid", forged.token("k2", key=forged.keys["k1"], now=utcnow())),
    ):
        answer = await by_file.get("/api/pairings", bad)
        assert (answer.status, answer.error) == (401, "INVALID_TOKEN"), reason
        assert (await by_file.events("auth.token_rejected"))[-1]["reason"] == reason


async def test_a_foreign_token_opens_no_websocket_and_no_audit_log(by_file: Site, provider: Provider) -> None:
    foreign = account(provider)
    socket = await by_file.open(foreign.token)
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.closed() == 4401
    assert (await by_file.get("/api/audit", foreign.token)).status == 403


async def test_a_url_is_fetched_once_and_the_keys_are_kept(
    by_url: Site, provider: Provider, keys: KeyServer
) -> None:
    assert keys.requests == []  # not before somebody needs it
    for _ in range(5):
        assert await status(by_url, token(provider)) == 200
    keys.status, keys.body = 500, b""
    assert await status(by_url, token(provider)) == 200
    assert keys.requests == ["/jwks.json"]
    [refresh] = await by_url.events("auth.jwks_refresh")
    assert (refresh["outcome"], refresh["issuer"]) == ("success", ISSUER)


async def test_an_unknown_key_makes_no_second_fetch_within_a_minute(by_url: Site, keys: KeyServer) -> None:
    other = Provider(k2=elliptic_key())
    for _ in range(5):
        assert await status(by_url, token(other, "k2")) == 401
    assert len(keys.requests) == 1


async def test_a_new_key_in_the_file_is_taken_at_once_and_the_old_one_no_more(
    by_file: Site, provider: Provider, key_file: Path
) -> None:
    old = token(provider)
    assert await status(by_file, old) == 200
    rotated = Provider(k2=elliptic_key(), k3=elliptic_key())
    put(key_file, rotated)
    assert await status(by_file, token(rotated, "k3")) == 200
    assert await status(by_file, old) == 401


async def test_a_provider_that_is_away_is_no_fault_of_the_server(by_url: Site, keys: KeyServer) -> None:
    keys.status = 500
    answer = await by_url.get("/api/pairings", token(keys.provider))
    assert (answer.status, answer.error) == (401, "INVALID_TOKEN")
    own = await by_url.account()
    assert await status(by_url, own.token) == 200
    [refresh] = await by_url.events("auth.jwks_refresh")
    assert refresh["outcome"] == "error"


async def test_redirects_of_a_key_set_are_not_followed(by_url: Site, keys: KeyServer) -> None:
    keys.moved_to = keys.url.replace("/jwks.json", "/elsewhere")
    assert await status(by_url, token(keys.provider)) == 401
    assert keys.requests == ["/jwks.json"]


async def test_a_key_set_beyond_all_measure_is_not_read(by_url: Site, keys: KeyServer) -> None:
    keys.body = keys.body[:-1] + b" " * 100_000 + b"}"
    assert await status(by_url, token(keys.provider)) == 401


async def test_of_a_foreign_user_who_did_nothing_here_there_is_nothing_to_erase(
    by_file: Site, provider: Provider
) -> None:
    answer = await by_file.call("DELETE", "/api/account", None, account(provider).token)
    assert (answer.status, answer.error) == (404, "NOT_FOUND")
    assert "pairing-server" not in answer.body["message"], "a command is of no use to a user"
