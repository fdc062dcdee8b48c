"""The HTTP server with bounds: Tornado's defaults are open (3600 s for a header, 64 KiB of it, 100 MB of body)."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.web import Application

from pairing_server.web.base import DRAINED_SIZE

HEADER_SIZE = 16 * 1024
# Related durations, in seconds: a request's header and its body each within the first, both counted
# from their first byte; between requests a connection may be idle for the last.
HEADER_TIMEOUT = 10.0
BODY_TIMEOUT = 10.0
IDLE_TIMEOUT = 20.0


class Listener(HTTPServer):
    """Serves the application. Call `cut_slow_headers` once a second."""

    def initialize(self, application: Application) -> None:  # type: ignore[override]
        super().initialize(
            application,
            xheaders=False,  # it would believe anybody; see Edge.address
            max_header_size=HEADER_SIZE,
            idle_connection_timeout=IDLE_TIMEOUT,
            body_timeout=BODY_TIMEOUT,
            max_body_size=DRAINED_SIZE,
        )
        self._began: WeakKeyDictionary[HTTP1ServerConnection, float] = WeakKeyDictionary()

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
