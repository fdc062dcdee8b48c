"""What tests hold in their hands: HTTP calls, raw sockets and whole pairs of devices, against a running node."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import uuid4

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter
from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.server.server import Node
from pairing_server.store import users
from pairing_server.store.users import User
from tests.leaks import RUN

# Seconds for one answer on a machine that may be busy.
PATIENCE = 60
DAY_SECONDS = 86_400


class SupportsClose(Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        return str(self.body["error"])


@dataclass(frozen=True)
class Account:
    subject: str
    username: str
    token: str


class Socket:
    """One WebSocket as a client sees it."""

    _numbers = itertools.count(1000)

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection

    def send(self, message: Mapping[str, Any] | str | bytes) -> None:
        if isinstance(message, bytes):
            self.connection.write_message(message, binary=True)
        else:
            self.connection.write_message(message if isinstance(message, str) else json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        """The next message. Fails if the server has closed instead."""
        text = await self.connection.read_message()
        assert text is not None, f"closed {self.connection.close_code} {self.connection.close_reason}"
        message: dict[str, Any] = json.loads(text)
        return message

    async def expect(self, type_: str) -> dict[str, Any]:
        """The next message, which must be of that type."""
        message = await self.receive()
        assert message["type"] == type_, message
        return message

    async def error(self) -> dict[str, Any]:
        return await self.expect("error")

    async def pending(self) -> list[dict[str, Any]]:
        """Everything the server has sent up to now: a ping is answered after it."""
        number = next(self._numbers)
        self.send({"type": "ping", "sequence": number})
        messages = []
        while (message := await self.receive()) != {"type": "pong", "sequence": number}:
            messages.append(message)
        return messages

    async def closed(self) -> int | None:
        """The close code, once the server has closed; anything before it is thrown away."""
        while await self.connection.read_message() is not None:
            pass
        return self.connection.close_code

    def close(self) -> None:
        self.connection.close()


@dataclass
class Device:
    """A joined device: its socket, session id and channel."""

    socket: Socket
    session_id: str
    device_type: str
    channel: str


class Site:
    """A running node and those who use it."""

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.port = port
        self.client = SimpleAsyncHTTPClient(force_instance=True, max_clients=500)
        # Of either kind: see also tests/websocket/raw.py.
        self.sockets: list[SupportsClose] = []
        self.keep_keys_secret()

    def keep_keys_secret(self) -> None:
        """Have the node's keys searched for in what this test writes."""
        for key in self.node.config.jwt_keys:
            RUN.secrets.add("signing key", key.secret.decode())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One HTTP request. `body`: JSON value, or bytes as they are."""
        given = dict(headers or {})
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
            RUN.secrets.add("token", token)
        if body is not None and "Content-Type" not in given:
            given["Content-Type"] = "application/json"
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if method == "POST" and raw is None:
            raw = b""
        request = HTTPRequest(
            self.url + path,
            method=method,
            body=raw,
            headers=given,
            allow_nonstandard_methods=True,
            connect_timeout=PATIENCE,
            request_timeout=PATIENCE,
            follow_redirects=False,
        )
        response: HTTPResponse = await self.client.fetch(request, raise_error=False)
        text = response.body or b""
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        answer = json.loads(text) if is_json and text else text
        RUN.secrets.sent(body)
        RUN.secrets.received(answer)
        return Answer(response.code, answer, response.headers)

    async def post(self, path: str, body: Any = None, token: str | None = None, **headers: str) -> Answer:
        return await self.call("POST", path, body, token, headers)

    async def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        return await self.call("GET", path, None, token, headers)

    async def account(self, username: str | None = None, role: str = "user") -> Account:
        """An account with an access token, made below HTTP: no password is hashed, no limit is touched."""
        user_id, name = uuid4(), username or f"user-{uuid4().hex[:8]}"
        async with self.node.database.transaction() as conn:
            await users.add(conn, User(user_id, name, role, utcnow(), None), "no password")
        return Account(
            str(user_id), name, self.node.backend.tokens.issue_access(str(user_id), utcnow()).token
        )

    async def ws_token(self, account: Account, device_type: str) -> str:
        suffix = "-mobile" if device_type == "mobile" else ""
        answer = await self.post(f"/api/auth/ws-token{suffix}", {}, account.token)
        assert answer.status == 200, answer
        return str(answer.body["token"])

    async def open(
        self,
        token: str | None,
        via: str = "query",
        headers: Mapping[str, str] | None = None,
        path: str = "/ws",
    ) -> Socket:
        """A socket, before its first message is read."""
        url = f"ws://127.0.0.1:{self.port}{path}"
        given, subprotocols = dict(headers or {}), None
        RUN.secrets.add("token", token or "")
        if token is not None and via == "query":
            url += f"?token={token}"
        elif token is not None and via == "header":
            given["Authorization"] = f"Bearer {token}"
        elif token is not None:
            subprotocols = [f"Bearer.{token}"]
        request = HTTPRequest(url, headers=given)
        socket = Socket(await websocket_connect(request, subprotocols=subprotocols))
        self.sockets.append(socket)
        return socket

    async def connect(self, account: Account, device_type: str) -> Socket:
        """A socket that has been greeted."""
        socket = await self.open(await self.ws_token(account, device_type))
        await socket.expect("connected")
        return socket

    async def code(self, account: Account, session_id: str) -> str:
        answer = await self.post("/api/generate-pair-code", {"desktop_session_id": session_id}, account.token)
        assert answer.status == 200, answer
        return str(answer.body["code"])

    async def redeem(self, account: Account, code: str, session_id: str) -> Answer:
        return await self.post(
            "/api/pair-device", {"code": code, "mobile_session_id": session_id}, account.token
        )

    async def join(self, account: Account, device_type: str, channel: str, session_id: str) -> Device:
        """A device that has joined; everything it was sent by then is read."""
        socket = await self.connect(account, device_type)
        socket.send(
            {"type": "join_channel", "channel": channel, "device_type": device_type, "session_id": session_id}
        )
        await socket.expect("channel_joined")
        await socket.pending()
        return Device(socket, session_id, device_type, channel)

    async def pair(self, account: Account | None = None) -> tuple[Device, Device]:
        """Two devices in one channel, with nothing left to read."""
        account = account or await self.account()
        desktop_session, mobile_session = f"desktop-{uuid4().hex}", f"mobile-{uuid4().hex}"
        code = await self.code(account, desktop_session)
        assert (await self.redeem(account, code, mobile_session)).status == 200
        channel = f"pair-{code}"
        desktop = await self.join(account, "desktop", channel, desktop_session)
        mobile = await self.join(account, "mobile", channel, mobile_session)
        await desktop.socket.pending()
        return desktop, mobile

    async def events(self, name: str) -> list[dict[str, Any]]:
        """The audit events of that name, oldest first, once all that waits is written."""
        await self.node.audit.flush(system(utcnow()))
        async with self.node.database.transaction() as conn:
            found = (await search.page(conn, Filter(event=name), 1000)).events
        return [
            {
                "outcome": r.event.outcome,
                "reason": r.event.reason,
                "actor": r.event.actor_subject,
                **r.event.attrs,
            }
            for r in reversed(found)
        ]

    def use(self, **services: Any) -> None:
        """Have the node use these services from now on."""
        node = self.node
        node.services = node.backend.services = node.app.services = replace(node.services, **services)

    async def run(self, job: str) -> None:
        """Do that job of the scheduler now, once; it must not fail."""
        [found] = [each for each in self.node.scheduler.jobs if each.name == job]
        assert await self.node.scheduler.run(found)

    async def leave(self) -> None:
        """Close sockets and channels, and return once the node has let go of them and has written its audit log."""
        for socket in self.sockets:
            socket.close()
        self.sockets.clear()
        while self.node.hub.connections:
            await self.get("/healthz")
        late = asyncio.get_running_loop().time() + DAY_SECONDS
        await self.node.backend.expiry.close_overdue(late, system(utcnow()))
        await self.node.app.settled()
        await self.node.audit.flush(system(utcnow()))

    async def close(self) -> None:
        for socket in self.sockets:
            socket.close()
        self.client.close()
