"""Messages that have come over one WebSocket and that no caller has taken yet."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from contextlib import suppress
from typing import Any

from tornado.websocket import WebSocketClientConnection

from pairing_server.client.errors import Closed, NotAPairingServer, ServerError, TimedOut

Message = dict[str, Any]


class Inbox:
    """Keeps messages until they are wanted, oldest first. Several tasks may wait at once: each message goes to one of them.

    `timeout`: seconds to wait where a method is given none.
    """

    def __init__(self, socket: WebSocketClientConnection, timeout: float) -> None:
        self.closed = False
        self._socket = socket
        self._timeout = timeout
        # By the number of the message.
        self._kept: OrderedDict[int, Message] = OrderedDict()
        self._arrived = 0
        # One for all tasks that wait.
        self._reading: asyncio.Task[int | None] | None = None

    async def receive(self, within: float | None) -> Message:
        """The next message. Raises Closed, TimedOut."""
        deadline = self._deadline(within)
        while not self._kept:
            await self._arrival(deadline)
        _, message = self._kept.popitem(last=False)
        return message

    async def expect(self, type_: str, within: float | None) -> Message:
        """The next message of that type; those before it stay for later, in their order.

        Raises ServerError if an `error` comes instead, Closed, TimedOut.
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
            # Another task may have taken it.
            if number not in self._kept or self._kept[number]["type"] not in wanted:
                number = None
        found = self._kept.pop(number)
        if found["type"] != type_:
            raise _refusal(found)
        return found

    async def expect_close(self, within: float | None) -> int | None:
        """The close code, once the server has closed; messages before it stay for later."""
        deadline = self._deadline(within)
        try:
            while True:
                await self._arrival(deadline)
        except Closed as closed:
            return closed.code

    async def drain(self) -> None:
        """Throw away all messages until the server has closed. Raises TimedOut."""
        deadline = self._deadline(None)
        try:
            while not self.closed:
                with suppress(Closed, NotAPairingServer):
                    await self._arrival(deadline)
        finally:
            self._kept.clear()

    def _deadline(self, within: float | None) -> float:
        return asyncio.get_running_loop().time() + (self._timeout if within is None else within)

    async def _arrival(self, deadline: float) -> int:
        """The number of a message that has just come. It is kept, unless another task has taken it.

        Raises TimedOut, and Closed once all that came before has been kept.
        """
        if self.closed:
            raise Closed(self._socket.close_code, self._socket.close_reason)
        reading = self._reading = self._reading or asyncio.ensure_future(self._read())
        # Not cancelled when the time is over: the message that was on its way is the next one read.
        await asyncio.wait([reading], timeout=deadline - asyncio.get_running_loop().time())
        if not reading.done():
            raise TimedOut("no message came in time")
        if self._reading is reading:
            self._reading = None
        number = reading.result()
        if number is None:
            raise Closed(self._socket.close_code, self._socket.close_reason)
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
