"""One open WebSocket of a device: send, receive, wait for what is expected. It does not reconnect."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from pairing_server.client.errors import ClientError, Closed, NotAPairingServer, ServerError, TimedOut, text

Message = dict[str, Any]


class Connection:
    """One open WebSocket of a device; PairingClient.connect makes it. As a context manager it closes itself.

    What the protocol answers (`identify`, `join`, `ping`, `leave`, `refresh`) returns the answer. Every method
    may raise Closed; what waits also ServerError and TimedOut. Several tasks may use it at once: each message goes
    to one of those who wait for it, and all are told when it is closed.
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
        # What has come and nobody has wanted yet, oldest first, each by its number.
        self._kept: OrderedDict[int, Message] = OrderedDict()
        self._arrived = 0
        # One for all who wait, in whichever task.
        self._reading: asyncio.Task[int | None] | None = None
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
        deadline = self._deadline(within)
        while not self._kept:
            await self._arrival(deadline)
        _, message = self._kept.popitem(last=False)
        return message

    async def expect(self, type_: str, within: float | None = None) -> Message:
        """The next message of that type; those before it stay for later, in their order.

        Raises ServerError if an `error` comes instead.
        """
        wanted = (type_, "error")
        deadline = self._deadline(within)
        number = next((number for number, message in self._kept.items() if message["type"] in wanted), None)
        while number is None:
            try:
                number = await self._arrival(deadline)
            except TimedOut:
                came = ", ".join(message["type"] for message in self._kept.values()) or "nothing"
                raise TimedOut(f"no {type_} came in time, but {came}") from None
            # Another who waited may have taken it.
            if number not in self._kept or self._kept[number]["type"] not in wanted:
                number = None
        found = self._kept.pop(number)
        if found["type"] != type_:
            raise _refusal(found)
        return found

    async def expect_close(self, within: float | None = None) -> int | None:
        """The close code, once the server has closed; messages before it stay for later."""
        deadline = self._deadline(within)
        try:
            while True:
                await self._arrival(deadline)
        except Closed as closed:
            return closed.code

    def _deadline(self, within: float | None) -> float:
        return asyncio.get_running_loop().time() + (self.timeout if within is None else within)

    async def _arrival(self, deadline: float) -> int:
        """The number of a message that has come just now, and is kept unless another has taken it.

        Raises TimedOut, and Closed once all that came before has been kept.
        """
        if self.closed:
            raise Closed(self.close_code, self.close_reason)
        reading = self._reading = self._reading or asyncio.ensure_future(self._read())
        # Not cancelled when the time is over: the message that was on its way is the next one read.
        await asyncio.wait([reading], timeout=deadline - asyncio.get_running_loop().time())
        if not reading.done():
            raise TimedOut("no message came in time")
        if self._reading is reading:
            self._reading = None
        number = reading.result()
        if number is None:
            raise Closed(self.close_code, self.close_reason)
        return number

    async def _read(self) -> int | None:
        """Keep the next message; its number, or None if the server has closed instead."""
        data = await self._socket.read_message()
        if data is None:
            self.closed = True
            self._socket.close()
            return None
        self._arrived += 1
        self._kept[self._arrived] = _message(data)
        return self._arrived

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait until the server has closed too. What it still says is thrown away."""
        if not self.closed:
            self._socket.close(code, reason)
        deadline = self._deadline(None)
        while not self.closed:
            try:
                await self._arrival(deadline)
            except TimedOut:
                self.drop()
            except (Closed, NotAPairingServer):
                pass
        self._kept.clear()

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
