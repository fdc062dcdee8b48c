"""One device of one account: what it does over HTTP, and how its WebSocket is opened."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import WebSocketError, websocket_connect

from pairing_server.client.connection import Connection
from pairing_server.client.errors import NotAPairingServer, NotReachable, ServerError, text
from pairing_server.text import is_host_name

# Seconds that one request or one wait may take.
TIMEOUT = 10.0

DeviceType = Literal["desktop", "mobile"]
TokenVia = Literal["header", "query", "subprotocol"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Code:
    """A code for the desktop to show. `expires_in`: seconds. Its repr keeps the secret."""

    code: str = field(repr=False)
    channel: str = field(repr=False)
    pairing_uri: str = field(repr=False)
    expires_at: datetime
    expires_in: int


@dataclass(frozen=True, slots=True)
class Pairing:
    """One of the account's live pairings."""

    id: str
    state: str
    desktop_session_id: str
    mobile_session_id: str | None


class PairingClient:
    """One device of one account, against the server at `url`. Raises ValueError for a URL that is none.

    Every method raises ClientError: NotReachable, NotAPairingServer, or ServerError. `access_token` may be
    set instead of calling `login`. Use it as a context manager, or `close` it.
    """

    def __init__(
        self,
        url: str,
        device_type: DeviceType,
        *,
        session_id: str | None = None,
        access_token: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.url = base_url(url)
        self.device_type: DeviceType = device_type
        self.session_id = session_id or f"{device_type}-{secrets.token_hex(12)}"
        self.access_token = access_token
        self.timeout = timeout
        self._http = SimpleAsyncHTTPClient(force_instance=True)

    @property
    def ws_url(self) -> str:
        """ws for http, wss for https."""
        return f"ws{self.url.removeprefix('http')}/ws"

    async def healthz(self) -> None:
        """Raises unless the process lives."""
        await self._status("/healthz", "ok")

    async def readyz(self) -> None:
        """Raises unless the server can pair now."""
        await self._status("/readyz", "ready")

    async def _status(self, path: str, expected: str) -> None:
        if text(await self.call("GET", path), "status") != expected:
            raise NotAPairingServer(f"{path} does not say {expected}.")

    async def register(self, username: str, password: str) -> str:
        """Make an account; its user id."""
        body = {"username": username, "password": password}
        return text(await self.call("POST", "/api/auth/register", body), "user_id")

    async def login(self, username: str, password: str) -> None:
        """Get the access token that the other calls need."""
        body = {"username": username, "password": password}
        self.access_token = text(await self.call("POST", "/api/auth/login", body), "token")

    async def delete_account(self) -> None:
        """Delete the account and all that belongs to it. The login must be younger than five minutes."""
        await self.call("DELETE", "/api/account")

    async def ws_token(self) -> str:
        """A fresh ws token of this device's type."""
        suffix = "-mobile" if self.device_type == "mobile" else ""
        return text(await self.call("POST", f"/api/auth/ws-token{suffix}", {}), "token")

    async def generate_code(self) -> Code:
        """A pairing with this session as its desktop."""
        answer = await self.call("POST", "/api/generate-pair-code", {"desktop_session_id": self.session_id})
        try:
            expires_at, expires_in = datetime.fromisoformat(answer["expires_at"]), int(answer["expires_in"])
        except (KeyError, TypeError, ValueError):
            raise NotAPairingServer("The answer has no `expires_at` and `expires_in` of a code.") from None
        code, channel = text(answer, "code"), text(answer, "channel_id")
        return Code(code, channel, text(answer, "pairing_uri"), expires_at, expires_in)

    async def redeem(self, code: str, *, confirmed_within: float = 0.0) -> str:
        """Take the phone's seat; the channel's name.

        While a server is under attack it may want the desktop to confirm the phone (CONFIRMATION_NEEDED): the
        phone then asks again, for so many seconds.
        """
        body = {"code": code, "mobile_session_id": self.session_id}
        while True:
            try:
                return text(await self.call("POST", "/api/pair-device", body), "channel_id")
            except ServerError as error:
                wait = error.retry_after or 1.0
                if error.code != "CONFIRMATION_NEEDED" or wait > confirmed_within:
                    raise
            confirmed_within -= wait
            await asyncio.sleep(wait)

    async def pairings(self) -> list[Pairing]:
        """The account's live pairings, newest first."""
        answer = await self.call("GET", "/api/pairings")
        try:
            return [
                Pairing(row["id"], row["state"], row["desktop_session_id"], row["mobile_session_id"])
                for row in answer["pairings"]
            ]
        except (KeyError, TypeError):
            raise NotAPairingServer("The answer is no list of pairings.") from None

    async def unpair(self, pairing_id: str) -> None:
        """End the pairing for good."""
        await self.call("DELETE", f"/api/pairings/{quote(pairing_id, safe='')}")

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One HTTP request, with the access token if there is one; the object that is answered."""
        request = HTTPRequest(
            self.url + path,
            method=method,
            headers={**({"Content-Type": "application/json"} if body is not None else {}), **(headers or {})},
            body=None if body is None else json.dumps(body),
            connect_timeout=self.timeout,
            request_timeout=self.timeout,
            follow_redirects=False,
        )
        if self.access_token is not None:
            request.headers["Authorization"] = f"Bearer {self.access_token}"
        return _answer(await self._reach(self._http.fetch(request, raise_error=False)))

    async def connect(
        self,
        token: str | None = None,
        via: TokenVia = "header",
        headers: Mapping[str, str] | None = None,
        *,
        greeted: bool = True,
    ) -> Connection:
        """An open WebSocket. `token`: a ws token, a fresh one if it is missing; `via`: how it is presented.

        With `greeted` the server's `connected` has come, or its ServerError is raised; without it, what
        the server says first is still to be received.
        """
        token = await self.ws_token() if token is None else token
        request = HTTPRequest(
            f"{self.ws_url}?token={quote(token)}" if via == "query" else self.ws_url,
            headers=dict(headers or {}),
            connect_timeout=self.timeout,
            request_timeout=self.timeout,
        )
        if via == "header":
            request.headers["Authorization"] = f"Bearer {token}"
        subprotocols = ["pairing.v1", f"Bearer.{token}"] if via == "subprotocol" else None
        try:
            opening = websocket_connect(request, subprotocols=subprotocols)
            connection = Connection(
                await self._reach(opening), self.device_type, self.session_id, self.timeout
            )
        except HTTPClientError as error:
            if error.response is None:
                raise NotAPairingServer(f"The WebSocket was refused with HTTP {error.code}.") from None
            _answer(error.response)
            raise NotAPairingServer("The WebSocket was refused without a reason.") from None
        except WebSocketError:
            raise NotAPairingServer(f"{self.ws_url} does not answer as a WebSocket.") from None
        if greeted:
            try:
                await connection.greeting()
            except BaseException:
                connection.drop()
                raise
        return connection

    async def _reach(self, answer: Awaitable[T]) -> T:
        """The answer. Raises NotReachable if there is none in time, HTTPClientError for one that refuses."""
        try:
            return await answer
        except HTTPClientError as error:
            if error.code != 599:
                raise
            raise NotReachable(f"{self.url} gave no answer: {error.message}.") from None
        except OSError as error:
            raise NotReachable(f"{self.url} is not reachable: {error.strerror or error}.") from None

    def close(self) -> None:
        """Let go of the HTTP connections. WebSockets stay open."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def base_url(url: str) -> str:
    """The URL that the paths of the protocol follow. Raises ValueError, with what was expected."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("expected a URL such as https://pairing.example.com or http://127.0.0.1:8089")
    if not is_host_name(parts.hostname):
        raise ValueError("expected a host name whose parts have 1 to 63 characters")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("expected a URL without user, query and fragment")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _answer(response: HTTPResponse) -> dict[str, Any]:
    """The object that was answered. Raises ServerError for the protocol's error form."""
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        body = None
    failed = not 200 <= response.code < 300
    if not isinstance(body, dict) or (failed and not isinstance(body.get("error"), str)):
        moved = f", and sends on to {response.headers['Location']}" if "Location" in response.headers else ""
        path = urlsplit(response.request.url).path
        raise NotAPairingServer(
            f"{path} answers HTTP {response.code}, but not as a pairing server does{moved}."
        )
    if not failed:
        return body
    wait = response.headers.get("Retry-After", "")
    details = body.get("details")
    raise ServerError(
        body["error"],
        str(body.get("message")),
        details if isinstance(details, dict) else {},
        response.code,
        float(wait) if wait.isdecimal() else None,
    )
