"""The HTTP server with bounds: Tornado's defaults are open (3600 s for a header, 64 KiB of it, 100 MB of body)."""

from __future__ import annotations

import logging
import resource
from typing import Any
from weakref import WeakKeyDictionary

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application

from pairing_server.web.base_handler import BODY_SIZE, DRAINED_SIZE

log = logging.getLogger(__name__)

HEADER_SIZE = 16 * 1024
# Related durations, in seconds: a request's header and its body each within the first, both counted
# from their first byte; between requests a connection may be idle for the last.
HEADER_TIMEOUT = 10.0
BODY_TIMEOUT = 10.0
IDLE_TIMEOUT = 20.0
# Seconds in which a client must take at least a part of what waits for it.
READ_TIMEOUT = 30.0
# File descriptors that no client gets: the database, the audit log and sockets on their way to picows need some.
RESERVED = 64


class BoundedHTTPServer(HTTPServer):
    """Serves the application. Call `cut_slow` once a second."""

    def initialize(self, application: Application) -> None:  # type: ignore[override]
        super().initialize(
            application,
            xheaders=False,  # it would trust any client; see AppContext.address
            # What is read at once, and so what a connection holds of a body that nobody keeps.
            chunk_size=BODY_SIZE,
            max_header_size=HEADER_SIZE,
            idle_connection_timeout=IDLE_TIMEOUT,
            body_timeout=BODY_TIMEOUT,
            max_body_size=DRAINED_SIZE,
        )
        self._began: WeakKeyDictionary[HTTP1ServerConnection, float] = WeakKeyDictionary()
        # How much of an answer was taken last, and since when no more was.
        self._taken: WeakKeyDictionary[HTTP1ServerConnection, tuple[int, float]] = WeakKeyDictionary()
        # Descriptors from this number on are not for clients; the lowest free one is given out first.
        self.room = _room()
        self.turned_away = 0
        self._reported = 0

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Close the connection if few descriptors are left. With none left, Tornado would retry accept() in a busy loop."""
        if stream.socket.fileno() >= self.room:
            self.turned_away += 1
            stream.close()
        else:
            super().handle_stream(stream, address)

    def cut_slow(self, now: float) -> None:
        """Close slow connections; call it once a second. `now`: monotonic seconds."""
        self.cut_slow_headers(now)
        self.cut_slow_readers(now)
        if self.turned_away != self._reported:
            log.warning(
                "connections closed at once",
                extra={
                    "count": self.turned_away - self._reported,
                    "reason": "no file descriptors left for them (LimitNOFILE=, ulimit -n)",
                },
            )
            self._reported = self.turned_away

    def cut_slow_headers(self, now: float) -> int:
        """Close connections that have sent a part of a header for longer than its time. How many.

        Tornado's one timeout covers waiting for a header and reading it, so a header that trickles in
        needs its own. `now`: monotonic seconds.
        """
        cut = 0
        for connection in list(self._connections):
            stream = connection.stream
            # Waiting for the end of a header (a pattern), with some of it here already.
            if stream._read_regex is None or not stream._read_buffer_size:
                self._began.pop(connection, None)
            elif now - self._began.setdefault(connection, now) >= HEADER_TIMEOUT:
                stream.close()
                cut += 1
        return cut

    def cut_slow_readers(self, now: float) -> int:
        """Close connections that have taken nothing of their answer for longer than its time. How many.

        Tornado waits for them without end. `now`: monotonic seconds.
        """
        cut = 0
        for connection in list(self._connections):
            stream = connection.stream
            taken = stream._total_write_done_index
            if not stream.writing():
                self._taken.pop(connection, None)
                continue
            before, since = self._taken.setdefault(connection, (taken, now))
            if taken != before:
                self._taken[connection] = taken, now
            elif now - since >= READ_TIMEOUT:
                stream.close()
                cut += 1
        return cut


def _room() -> int:
    """How many descriptors there are for clients."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 2**31
    return limit - min(RESERVED, limit // 4)
