"""One open WebSocket of a device: send, receive, wait for what is expected. It does not reconnect."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from pairing_server.client.errors import ClientError, Closed, NotAPairingServer, ServerError, TimedOut, text

Message = dict[str, Any]


class Connection:
    """One open WebSocket of a device; PairingClient.connect makes it. As a context manager it closes itself.

    What the protocol answers (`identify`, `join`, `ping`, `leave`, `refresh`) returns the answer. Every method
    may raise Closed; what waits also ServerError and TimedOut.
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
        self.closed = False
        self._socket = socket
        self._stream = socket.protocol.stream if socket.protocol is not None else None
        if self._stream is not None:
            # Two small messages in a row: the second must not wait for the answer to the first.
            self._stream.set_nodelay(True)
        self._kept: deque[Message] = deque()
        self._reading: asyncio.Future[str | bytes | None] | None = None
        self._pings = 0

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
        await self.send_message({"type": "identify", **self._device(), **_given(user_agent=user_agent)})
        return await self.expect("identified")

    async def join(self, channel: str, last_seq: int | None = None, epoch: str | None = None) -> Message:
        """Take the seat in the channel, which what is sent from now on goes to."""
        place = _given(last_seq=last_seq, epoch=epoch)
        await self.send_message({"type": "join_channel", "channel": channel, **self._device(), **place})
        joined = await self.expect("channel_joined")
        self.channel = channel
        return joined

    async def send(self, payload: Mapping[str, Any], id: str | int | None = None) -> None:  # noqa: A002
        """A channel_message. With an `id` the server sends `ack`."""
        await self._to_channel("channel_message", payload=payload, id=id)

    async def sync_settings(self, settings: Mapping[str, Any], base_rev: int | None = None) -> None:
        """Settings that both devices shall have: all of them or some."""
        await self._to_channel("settings_sync", settings=settings, base_rev=base_rev)

    async def send_audio(self, chunk_id: str | int, data: str, format: str, sample_rate: int) -> None:  # noqa: A002
        """A piece of sound, `data` in Base64."""
        sound = {"chunk_id": chunk_id, "data": data, "format": format, "sample_rate": sample_rate}
        await self._to_channel("audio_chunk", **sound)

    async def ping(self) -> Message:
        """When the answer is there, the server has taken all that was sent before."""
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

    async def confirm(self, channel: str) -> None:
        """The desktop wants the phone that a `pairing_request` has told it of."""
        await self.send_message({"type": "pairing_confirm", "channel": channel})

    async def reject(self, channel: str) -> None:
        """It does not: its code ends, and `error` INVALID_CHANNEL with reason `rejected` follows if it has joined."""
        await self.send_message({"type": "pairing_reject", "channel": channel})

    async def refresh(self, token: str) -> Message:
        """Prolong the connection with a fresh ws token."""
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

    def _device(self) -> Message:
        return {"device_type": self.device_type, "session_id": self.session_id}

    async def _to_channel(self, type_: str, **fields: Any) -> None:
        await self.send_message({"type": type_, **_given(channelId=self.channel, **fields)})

    async def receive(self, within: float | None = None) -> Message:
        """The next message. Raises TimedOut if none comes in that many seconds (None: the client's timeout)."""
        return self._kept.popleft() if self._kept else await self._read(self._deadline(within))

    async def expect(self, type_: str, within: float | None = None) -> Message:
        """The next message of that type; those before it stay for later, in their order.

        Raises ServerError if an `error` comes instead.
        """
        found = next((message for message in self._kept if message["type"] in (type_, "error")), None)
        if found is not None:
            self._kept.remove(found)
        deadline = self._deadline(within)
        while found is None:
            try:
                message = await self._read(deadline)
            except TimedOut:
                came = ", ".join(message["type"] for message in self._kept) or "nothing"
                raise TimedOut(f"no {type_} came in time, but {came}") from None
            if message["type"] in (type_, "error"):
                found = message
            else:
                self._kept.append(message)
        if found["type"] != type_:
            raise _refusal(found)
        return found

    async def expect_close(self, within: float | None = None) -> int | None:
        """The close code, once the server has closed; messages before it stay for later."""
        deadline = self._deadline(within)
        try:
            while True:
                self._kept.append(await self._read(deadline))
        except Closed as closed:
            return closed.code

    def _deadline(self, within: float | None) -> float:
        return asyncio.get_running_loop().time() + (self.timeout if within is None else within)

    async def _read(self, deadline: float) -> Message:
        return _message(await self._frame(deadline))

    async def _frame(self, deadline: float) -> str | bytes:
        if self.closed:
            raise Closed(self.close_code, self.close_reason)
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._socket.read_message())
        # Not cancelled when the time is over: the message that was on its way is the next one read.
        await asyncio.wait([self._reading], timeout=deadline - asyncio.get_running_loop().time())
        if not self._reading.done():
            raise TimedOut("no message came in time")
        data, self._reading = self._reading.result(), None
        if data is None:
            self.closed = True
            self._socket.close()
            raise Closed(self.close_code, self.close_reason)
        return data

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait until the server has closed too. What it still says is thrown away."""
        if not self.closed:
            self._socket.close(code, reason)
        deadline = self._deadline(None)
        try:
            while True:
                await self._frame(deadline)
        except Closed:
            self._kept.clear()
        except TimedOut:
            self.drop()

    def drop(self) -> None:
        """Break the connection without a word, as a lost network does."""
        if self._stream is not None:
            self._stream.close()
        self.closed = True
        self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _message(data: str | bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise NotAPairingServer("A message that came is not a JSON object with a type.")
    return message


def _refusal(message: Message) -> ServerError:
    details = message.get("details")
    details = details if isinstance(details, dict) else {}
    wait = details.get("retry_after_ms")
    return ServerError(
        str(message.get("code")),
        str(message.get("message")),
        details,
        retry_after=wait / 1000 if isinstance(wait, int | float) else None,
    )
