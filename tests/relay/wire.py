"""Doubles for the relay's tests: a transport that keeps what it carries, and clients on a clock the test sets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pairing_server.config import Configuration
from pairing_server.errors import PairingServerError
from pairing_server.relay import requests
from pairing_server.relay.channel import Channel
from pairing_server.relay.connection import Connection
from pairing_server.relay.context import RelayContext, RelayEvent
from pairing_server.relay.hub import Hub
from pairing_server.relay.identity import Device, Identity, Peer
from pairing_server.relay.members import Member
from pairing_server.relay.send_queue import Entry, SendQueue
from pairing_server.websocket.commands import COMMANDS

LOGGED_IN = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Wire:
    """A transport. While it is `stalled`, the client does not read: the kernel takes nothing."""

    def __init__(self) -> None:
        self.carried: deque[bytes] = deque()
        self.closed: tuple[int, str] | None = None
        self.stalled = False
        self.send_queue: SendQueue | None = None
        self._untaken: deque[int] = deque()

    def write(self, message: bytes, binary: bool) -> None:
        self.carried.append(message)
        if self.stalled:
            self._untaken.append(len(message))
            if self.send_queue is not None:
                self.send_queue.stalled()

    def write_all(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.write(entry.message, entry.binary)

    def pending(self) -> int:
        return sum(self._untaken)

    def busy(self) -> None:
        """Nothing is to be told of here."""

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    def drop(self) -> None:
        """What a client sees without a close frame."""
        self.close(1006, "")

    def read(self, count: int | None = None) -> None:
        """The client reads what is under way and what follows it, or as many messages of it."""
        while self._untaken and count != 0:
            count = None if count is None else count - 1
            self._untaken.popleft()
            if not self._untaken and self.send_queue is not None:
                self.send_queue.drained()

    def taken(self) -> list[dict[str, Any]]:
        """What has been carried since the last call."""
        found = [json.loads(message) for message in self.carried]
        self.carried.clear()
        return found


class Client:
    """One connection and its wire, with the handler's part in between: errors are sent, `leave_channel` leaves."""

    def __init__(self, relay: Relay, connection: Connection, wire: Wire) -> None:
        self.relay = relay
        self.connection = connection
        self.wire = wire

    def send(self, message: Mapping[str, Any] | str | bytes) -> requests.ClientMessage | Member | None:
        text = message if isinstance(message, str | bytes) else json.dumps(message)
        try:
            rest = self.connection.receive(text, self.relay.now)
        except PairingServerError as error:
            self.connection.refuse(error, text, self.relay.now)
            return None
        if isinstance(rest, requests.LeaveChannel):
            self.connection.leave(self.relay.now)
            return None
        return rest

    def ask(self, message: Mapping[str, Any] | str | bytes) -> list[dict[str, Any]]:
        """What the client is sent when it sends that."""
        self.received()
        self.send(message)
        return self.received()

    def received(self) -> list[dict[str, Any]]:
        return self.wire.taken()

    def types(self) -> list[str]:
        return [message["type"] for message in self.received()]

    @property
    def close_code(self) -> int | None:
        return self.wire.closed[0] if self.wire.closed else None

    def join(self, channel: Channel, session_id: str | None = None, **fields: Any) -> None:
        """Take a seat, as the services would have allowed."""
        if self.connection.device is None:
            device = Device(session_id or f"{self.connection.device_type}-session")
            self.identify(device)
        request = requests.JoinChannel(channel=channel.name, **fields)
        self.relay.hub.join(self.connection, channel, request, self.relay.now)

    def identify(self, device: Device) -> None:
        """Be that device, as the services would have allowed."""
        self.relay.hub.identify(self.connection, device)


class Relay:
    """A hub, a clock, and what was reported to the audit log."""

    def __init__(self, **limits: Any) -> None:
        self.now = 1000.0
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.reported: list[RelayEvent] = []
        self.hub = Hub(
            RelayContext(
                replace(Configuration().connection_limits, **limits),
                lambda: self.now,
                self._later,
                self.reported.append,
            )
        )

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, call))

    def events(self, name: str) -> list[dict[str, object]]:
        return [dict(event.attributes) for event in self.reported if event.name == name]

    def pass_time(self, seconds: float) -> None:
        """The clock goes on, and what has become due happens."""
        self.now += seconds
        while ready := [entry for entry in self.due if entry[0] <= self.now]:
            self.due = [entry for entry in self.due if entry[0] > self.now]
            for _, call in ready:
                call()

    def client(
        self,
        device_type: str,
        subject: str = "alice",
        *,
        expires_in: float = 3600,
        address: str = "192.0.2.1",
    ) -> Client:
        wire = Wire()
        identity = Identity(subject, device_type, "token", "login", None, self.now + expires_in, LOGGED_IN)
        peer = Peer(str(uuid4()), identity, address, address)
        connection = Connection(peer, wire, self.hub.context, COMMANDS, self.now)
        self.hub.add(connection)
        return Client(self, connection, wire)

    def channel(self, name: str = "pair-123456") -> Channel:
        return self.hub.open_channel(uuid4(), name, self.now)

    def pair(self, name: str = "pair-123456") -> tuple[Client, Client]:
        """A joined desktop and mobile that have read everything."""
        channel = self.channel(name)
        desktop, mobile = self.client("desktop"), self.client("mobile")
        desktop.join(channel)
        mobile.join(channel)
        desktop.received()
        mobile.received()
        return desktop, mobile


def codes(client: Client) -> list[str]:
    """The codes of the errors that the client has been sent since it was last looked at."""
    return [message["code"] for message in client.received() if message["type"] == "error"]


def sync(client: Client, **settings: Any) -> None:
    """The client sends these settings."""
    client.send({"type": "settings_sync", "settings": settings})
