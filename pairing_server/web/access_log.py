"""What is counted and logged of each HTTP request once it is answered."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus

from tornado.web import RequestHandler

from pairing_server.web.base_handler import BaseHandler

log = logging.getLogger("pairing_server.access")

# What a path is cut to.
PATH_LENGTH = 200
# The route of a request whose URL has no handler.
UNMATCHED = "unmatched"
# Of the methods that a client may write, those that are counted each by itself.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def log_request(handler: RequestHandler) -> None:
    """One line a request, without the query: it may hold a token."""
    request, status = handler.request, handler.get_status()
    seconds = request.request_time()
    method = request.method if request.method in METHODS else "OTHER"
    route = getattr(handler, "route", "") or UNMATCHED
    fields = {
        "method": method,
        "route": route,
        "path": re.sub(r"[^\x21-\x7e]", "?", request.path)[:PATH_LENGTH],
        "status": status,
        "ms": round(1000 * seconds, 1),
    }
    level = logging.INFO if status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
    if isinstance(handler, BaseHandler):
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            handler.app.answered[method, route, f"{status // 100}xx"] += 1
            handler.app.http_time.labels(route).observe(seconds)
        fields["address"] = handler.app.address(request)
        fields["request_id"] = str(handler.request_id)
        if handler.probe:
            level = logging.DEBUG
    log.log(level, "request", extra=fields)
