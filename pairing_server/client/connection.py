"""One open WebSocket of a device: send, receive, wait for a type of message. It does not reconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from pairing_server.client.errors import ClientError, Closed, TimedOut, text
from pairing_server.client.inbox import Inbox, Message


class Connection:
    """One open WebSocket of a device; PairingClient.connect makes it. As a context manager it closes itself.

    What the protocol answers (`identify`, `join`, `ping`, `leave`, `refresh`) returns the answer. Every method
    may raise Closed; those that wait also ServerError and TimedOut. Several tasks may use it at once: each message goes to
    one of the tasks that wait for it, and all of them get Closed.
    """

    def __init__(
        self, socket: WebSocketClientConnection, device_type: str, session_id: str, timeout: float
    ) -> None:
        self.device_type = device_type
        self.session_id = session_id
        self.timeout = timeout
        self.subprotocol = socket.selected_subprotocol
        self.client_id: str | None = None
        self.channel: str | None = None
        self._socket = socket
        self._stream = socket.protocol.stream if socket.protocol is not None else None
        if self._stream is not None:
            # Two small messages in a row: the second must not wait for the answer to the first.
            self._stream.set_nodelay(True)
        self._inbox = Inbox(socket, timeout)
        self._device = {"device_type": device_type, "session_id": session_id}
        self._pings = 0

    @property
    def closed(self) -> bool:
        """Whether the server has closed and every message before that has been received, or the connection is broken."""
        return self._inbox.closed

    @property
    def close_code(self) -> int | None:
        """The server's, once all that it sent before has been received; None if it gave none."""
        return self._socket.close_code

    @property
    def close_reason(self) -> str | None:
        return self._socket.close_reason

    async def greeting(self) -> None:
        """Wait for `connected`. A connection that is refused instead is closed, and the refusal raised."""
        try:
            self.client_id = text(await self.expect("connected"), "client_id")
        except ClientError:
            await self.close()
            raise

    async def identify(self, user_agent: str | None = None) -> Message:
        """Say which device this is."""
        await self.send_message({"type": "identify", **self._device, **_given(user_agent=user_agent)})
        return await self.expect("identified")

    async def join(self, channel: str, last_seq: int | None = None, epoch: str | None = None) -> Message:
        """Take the seat in the channel. Messages go there from now on."""
        place = _given(last_seq=last_seq, epoch=epoch)
        await self.send_message({"type": "join_channel", "channel": channel, **self._device, **place})
        joined = await self.expect("channel_joined")
        self.channel = channel
        return joined

    async def send(self, payload: Mapping[str, Any], id: str | int | None = None) -> None:  # noqa: A002
        """A channel_message. With an `id` the server sends `ack`."""
        await self._to_channel("channel_message", payload=payload, id=id)

    async def sync_settings(self, settings: Mapping[str, Any], base_rev: int | None = None) -> None:
        """Set some or all settings of the channel."""
        await self._to_channel("settings_sync", settings=settings, base_rev=base_rev)

    async def send_audio(self, chunk_id: str | int, data: str, format: str, sample_rate: int) -> None:  # noqa: A002
        """A piece of sound, `data` in Base64."""
        sound = {"chunk_id": chunk_id, "data": data, "format": format, "sample_rate": sample_rate}
        await self._to_channel("audio_chunk", **sound)

    async def ping(self) -> Message:
        """Wait for `pong`: the server has then taken all earlier messages."""
        self._pings += 1
        await self.send_message({"type": "ping", "sequence": self._pings})
        return await self.expect("pong")

    async def leave(self) -> Message:
        """Leave the channel but keep the connection."""
        await self._to_channel("leave_channel")
        left = await self.expect("channel_left")
        self.channel = None
        return left

    async def unpair(self) -> None:
        """End the pairing for good: `channel_closed` and close code 4410 follow."""
        await self._to_channel("unpair")

    async def answer_request(self, channel: str, *, wanted: bool) -> None:
        """Answer a `pairing_request`. If the phone is not `wanted`, the code ends, and a desktop that has joined gets `error`
        INVALID_CHANNEL with reason `rejected`."""
        type_ = "pairing_confirm" if wanted else "pairing_reject"
        await self.send_message({"type": type_, "channel": channel})

    async def refresh(self, token: str) -> Message:
        """Extend the connection with a new ws token."""
        await self.send_message({"type": "refresh_token", "token": token})
        return await self.expect("token_refreshed")

    async def send_message(self, message: Mapping[str, Any]) -> None:
        """Any message."""
        await self.send_raw(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    async def send_raw(self, data: str | bytes) -> None:
        """One text or binary frame as it is. Raises TimedOut if the server does not read."""
        try:
            sending = self._socket.write_message(data, binary=isinstance(data, bytes))
            await asyncio.wait_for(sending, self.timeout)
        except WebSocketClosedError:
            with suppress(TimedOut):
                await self.expect_close()
            raise Closed(self.close_code, self.close_reason) from None
        except TimeoutError:
            raise TimedOut(f"the server has not read for {self.timeout:g} s") from None

    async def _to_channel(self, type_: str, **fields: Any) -> None:
        await self.send_message({"type": type_, **_given(channelId=self.channel, **fields)})

    async def receive(self, within: float | None = None) -> Message:
        """The next message. Raises TimedOut if none comes in that many seconds (None: the client's timeout)."""
        return await self._inbox.receive(within)

    async def expect(self, type_: str, within: float | None = None) -> Message:
        """The next message of that type; those before it stay for later, in their order.

        Raises ServerError if an `error` comes instead.
        """
        return await self._inbox.expect(type_, within)

    async def expect_close(self, within: float | None = None) -> int | None:
        """The close code, once the server has closed; messages before it stay for later."""
        return await self._inbox.expect_close(within)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait until the server has closed too. Messages that still come are thrown away."""
        if not self.closed:
            self._socket.close(code, reason)
        try:
            await self._inbox.drain()
        except TimedOut:
            self.drop()

    def drop(self) -> None:
        """Break the connection without a close frame, as a lost network does."""
        if self._stream is not None:
            self._stream.close()
        self._inbox.closed = True
        self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
