"""The HTTP server with bounds: Tornado's defaults are open (3600 s for a header, 64 KiB of it, 100 MB of body)."""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.ioloop import IOLoop
from tornado.web import Application

from pairing_server.security.addresses import is_trusted, limit_key
from pairing_server.web.app_context import AppContext
from pairing_server.web.json_body import DRAINED_SIZE
from pairing_server.web.lingering import LingeringStream
from pairing_server.web.plain_connections import PlainConnections

log = logging.getLogger(__name__)

# What is read at once, and so what a connection holds of a body that is dropped.
READ_SIZE = 16 * 1024
# So many connections are accepted before anything else is done; accepting pauses for so many seconds while the process or
# the system has no descriptor left.
ACCEPTED_AT_ONCE = 128
PAUSE_SECONDS = 1.0
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class BoundedHTTPServer(HTTPServer):
    """Serves the application. Call `cut_slow` once a second."""

    def initialize(self, application: Application, app: AppContext) -> None:  # type: ignore[override]
        limits = app.http_limits
        super().initialize(
            application,
            xheaders=False,  # it would trust any client; see AppContext.address
            chunk_size=READ_SIZE,
            max_header_size=limits.header_size,
            idle_connection_timeout=limits.idle_timeout,
            body_timeout=limits.body_timeout,
            max_body_size=DRAINED_SIZE,
        )
        self._app = app
        self._plain = PlainConnections()
        self._began: WeakKeyDictionary[HTTP1ServerConnection, float] = WeakKeyDictionary()
        # How much of an answer was taken last, and since when no more was.
        self._taken: WeakKeyDictionary[HTTP1ServerConnection, tuple[int, float]] = WeakKeyDictionary()
        self.turned_away: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()

    # Accepting

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        for listening in sockets:
            self._sockets[listening.fileno()] = listening
            self._handlers[listening.fileno()] = partial(self._pause, listening)
            self._resume(listening)

    def _resume(self, listening: socket.socket) -> None:
        if not self._stopped:
            IOLoop.current().add_handler(listening, self._accept, IOLoop.READ)

    def _pause(self, listening: socket.socket) -> None:
        IOLoop.current().remove_handler(listening)

    def _accept(self, listening: Any, _events: int) -> None:
        """Accept what waits. Tornado would raise over and over where there is no descriptor left."""
        for _ in range(ACCEPTED_AT_ONCE):
            if self._stopped:
                return
            try:
                client, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it has gone while it waited
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self.turned_away["descriptors"] += 1
                self._pause(listening)
                IOLoop.current().call_later(PAUSE_SECONDS, self._resume, listening)
                return
            self._admit(client, address)

    def _admit(self, client: socket.socket, address: Any) -> None:
        """Serve the client, or close its connection: too many of its address, or of all.

        An idle connection gives way to a new one.
        """
        key = self._bounded_key(address)
        full = key and self._plain.count(key) >= self._app.http_limits.connections_per_address
        if full and not self._plain.close_idle(key):
            self._turn_away(client, "address")
            return
        if client.fileno() >= self._app.descriptors.websockets and self._plain.close_idle():
            # The number that is free now: numbers say how many are in use.
            given, client = client, client.dup()
            given.close()
        if client.fileno() >= self._app.descriptors.requests:
            self._turn_away(client, "descriptors")
            return
        stream = LingeringStream(client, self._app.lingering, READ_SIZE, self._app.http_limits.body_size)
        self._plain.add(stream, key)
        self.handle_stream(stream, address)

    def _bounded_key(self, address: Any) -> str:
        """What the limit of an address counts it by; "" for a trusted proxy or a Unix socket, which stand for many clients."""
        if not isinstance(address, tuple) or is_trusted(str(address[0]), self._app.trusted):
            return ""
        return limit_key(str(address[0]))

    def _turn_away(self, client: socket.socket, why: str) -> None:
        self.turned_away[why] += 1
        client.close()

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        stream = cast(LingeringStream, cast(HTTP1ServerConnection, server_conn).stream)
        self._plain.renew(stream)
        stream.begin(cast(HTTP1Connection, request_conn))
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        self._plain.remove(cast(HTTP1ServerConnection, server_conn).stream)
        super().on_close(server_conn)

    async def close_all_connections(self) -> None:
        await super().close_all_connections()
        self._app.lingering.close_all()

    # Once a second

    def cut_slow(self, now: float) -> None:
        """Close slow connections; call it once a second. `now`: monotonic seconds."""
        self.cut_slow_headers(now)
        self.cut_slow_readers(now)
        for why, count in (self.turned_away - self._reported).items():
            log.warning("connections closed at once", extra={"count": count, "reason": why})
        self._reported = self.turned_away.copy()

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
            elif now - self._began.setdefault(connection, now) >= self._app.http_limits.header_timeout:
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
            elif now - since >= self._app.http_limits.read_timeout:
                stream.close()
                cut += 1
        return cut
