"""Closes sockets whose clients may still be sending, so that what was sent to them last arrives.

A socket that is closed with unread bytes is reset, and the reset takes from the client what it has not read yet.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio import Future
from typing import Any
from uuid import uuid4

from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, UnsatisfiableReadError

from pairing_server.clock import utcnow
from pairing_server.errors import HeaderTooLarge, PairingServerError
from pairing_server.web.error_form import BARE_REFUSAL, unreadable, whole_answer

# What is read and dropped of one socket, and for how long; and how many sockets are kept open for that.
DROPPED_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0
MOST_SOCKETS = 64


class LingeringSockets:
    """Sockets of this process that only read, until their clients close them, or the bounds are reached."""

    def __init__(self) -> None:
        self._open: dict[socket.socket, asyncio.TimerHandle] = {}
        self._left: dict[socket.socket, int] = {}
        # What is read goes here, and is not used.
        self._dropped = bytearray(64 * 1024)

    def close(self, closing: socket.socket) -> None:
        """Send nothing more on this non-blocking socket, and close it once the client has. It belongs to this object."""
        try:
            closing.shutdown(socket.SHUT_WR)
        except OSError:
            closing.close()  # the client has gone
            return
        if len(self._open) >= MOST_SOCKETS:
            closing.close()
            return
        loop = asyncio.get_running_loop()
        self._open[closing] = loop.call_later(LINGER_SECONDS, self._end, closing)
        self._left[closing] = DROPPED_BYTES
        loop.add_reader(closing, self._drop, closing)

    def close_all(self) -> None:
        """Wait for none of them."""
        for lingering in list(self._open):
            self._end(lingering)

    def __len__(self) -> int:
        return len(self._open)

    def _drop(self, lingering: socket.socket) -> None:
        try:
            size = lingering.recv_into(self._dropped)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._left[lingering] -= size
        if not size or self._left[lingering] <= 0:
            self._end(lingering)

    def _end(self, lingering: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(lingering)
        self._open.pop(lingering).cancel()
        del self._left[lingering]
        lingering.close()


class LingeringStream(IOStream):
    """A client's stream, which lingers when it is closed behind an answer to a request that was not read to its end.

    A request that Tornado cannot read is answered in the form that all errors have.
    """

    def __init__(
        self, client: socket.socket, lingering: LingeringSockets, read_chunk_size: int, body_size: int
    ) -> None:
        super().__init__(client, read_chunk_size=read_chunk_size)
        self._lingering = lingering
        self._body_size = body_size
        self._request: HTTP1Connection | None = None
        self._written_before = 0

    def begin(self, request: HTTP1Connection) -> None:
        """The next request is read from now on."""
        self._request = request
        self._written_before = self._total_write_index

    def write(self, data: bytes | memoryview) -> Future[None]:
        if data != BARE_REFUSAL:
            return super().write(data)
        if self._is_answered():
            # A second answer would be taken for that to the next request.
            done: Future[None] = Future()
            done.set_result(None)
            return done
        return self._refuse(unreadable(sys.exception(), self._body_size))

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError) and not self.closed() and not self._is_answered():
            # Of the header, or of the line before a chunk.
            of_header = self._read_regex is not None
            limit = self._read_max_bytes
            self._refuse(HeaderTooLarge(limit=limit) if of_header else unreadable(None, self._body_size))
        super().close(exc_info)

    def _is_answered(self) -> bool:
        return self._request is not None and self._request._response_start_line is not None

    def _refuse(self, error: PairingServerError) -> Future[None]:
        return super().write(whole_answer(error, uuid4(), utcnow()))

    def close_fd(self) -> None:
        request, self._request = self._request, None
        answered = self._total_write_index > self._written_before
        if request is None or request._read_finished or not answered or self._write_buffer:
            super().close_fd()
            return
        closing, self.socket = self.socket, None  # type: ignore[assignment]
        self._lingering.close(closing)
