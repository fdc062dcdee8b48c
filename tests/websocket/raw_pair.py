"""Two joined devices by the byte: what each sends in one piece, and what the server holds of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pairing_server.relay.connection import Connection
from tests.devices import Device, Site
from tests.websocket.raw import CLOSE, PING, PONG, TEXT, Frame, RawSocket, frame


def text(message: dict[str, Any]) -> bytes:
    """One message in one frame."""
    return frame(TEXT, json.dumps(message).encode())


def said(number: int, **fields: Any) -> bytes:
    return text({"type": "channel_message", "payload": {"n": number, **fields}})


@dataclass
class RawDevice:
    """A joined device on a raw connection. `session`: the server's end of it."""

    raw: RawSocket
    connection: Connection
    session_id: str
    channel: str

    @property
    def protocol(self) -> Any:
        """The frame engine's part of the connection."""
        return self.connection._transport

    async def message(self) -> dict[str, Any]:
        """The next message. The server's pings are answered."""
        while (found := await self.raw.read()).opcode != TEXT:
            assert found.opcode in (PING, PONG), found
            if found.opcode == PING:
                await self.raw.send(PONG, found.payload)
        message: dict[str, Any] = json.loads(found.payload)
        return message

    async def messages(self, count: int) -> list[dict[str, Any]]:
        return [await self.message() for _ in range(count)]

    async def numbers(self, count: int) -> list[int]:
        """What `said` put into the next messages, of which there are no others."""
        return [message["payload"]["n"] for message in await self.messages(count)]

    async def pending(self) -> list[dict[str, Any]]:
        """Everything that was sent before the answer to a ping of now."""
        await self.raw.send_bytes(text({"type": "ping", "sequence": 987654}))
        messages = []
        while (message := await self.message()) != {"type": "pong", "sequence": 987654}:
            messages.append(message)
        return messages


async def connected(site: Site, token: str) -> tuple[RawSocket, Connection]:
    """A greeted connection, and the server's end of it."""
    raw = RawSocket()
    await raw.open(site, f"?token={token}")
    greeting = json.loads((await raw.read()).payload)
    return raw, site.node.hub.connections[greeting["client_id"]]


async def take_seat(site: Site, token: str, device: Device) -> RawDevice:
    """Join in the place of that device, which the server closes."""
    raw, connection = await connected(site, token)
    taken = RawDevice(raw, connection, device.session_id, device.channel)
    join = {"type": "join_channel", "channel": device.channel, "session_id": device.session_id}
    await raw.send_bytes(text(join))
    assert (await taken.message())["type"] == "channel_joined"
    assert await device.socket.closed() == 4409
    return taken


async def raw_pair(site: Site) -> tuple[RawDevice, RawDevice]:
    """A desktop and a mobile in one channel, with nothing left to read."""
    account = await site.account()
    pair = await site.pair(account)
    desktop, mobile = [
        await take_seat(site, await site.ws_token(account, device.device_type), device) for device in pair
    ]
    assert [message["type"] for message in await desktop.pending()] == ["client_joined"]
    assert await mobile.pending() == []
    return desktop, mobile


async def undisturbed(desktop: Device, mobile: Device) -> None:
    """The two still talk, and nothing else was sent to them."""
    for one, other in ((desktop, mobile), (mobile, desktop)):
        one.socket.send({"type": "channel_message", "payload": {"n": 1}})
        assert (await other.socket.receive())["payload"] == {"n": 1}
        assert await one.socket.pending() == []


async def until(condition: Callable[[], bool]) -> None:
    """Let the node work, turn by turn of the loop, until that is so."""
    for _ in iter(condition, True):
        await asyncio.sleep(0)


async def ping_time_passes(connection: Connection, seconds: float) -> None:
    """The at most so many seconds have passed until the engine pings next, or looks whether that was answered."""
    protocol: Any = connection._transport
    timer: asyncio.TimerHandle = protocol._keepalive._timer
    assert timer.when() - asyncio.get_running_loop().time() <= seconds
    timer._run()
    timer.cancel()


def codes(frames: Iterable[Frame]) -> list[str | int]:
    """Of each message its error code or else its type, of a close frame the code."""
    found_codes: list[str | int] = []
    for found in frames:
        if found.opcode == TEXT:
            message = json.loads(found.payload)
            found_codes.append(message.get("code", message["type"]))
        elif found.opcode == CLOSE:
            found_codes.append(found.close_code or 0)
    return found_codes
