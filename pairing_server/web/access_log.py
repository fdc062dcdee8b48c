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


def log_request(handler: RequestHandler) -> None:
    """One line a request, without the query: it may hold a token."""
    request, status = handler.request, handler.get_status()
    seconds = request.request_time()
    fields = {
        "method": re.sub("[^A-Z]", "?", request.method or "")[:20],
        "route": getattr(handler, "route", "") or UNMATCHED,
        "path": re.sub(r"[^\x21-\x7e]", "?", request.path)[:PATH_LENGTH],
        "status": status,
        "ms": round(1000 * seconds, 1),
    }
    level = logging.INFO if status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
    if isinstance(handler, BaseHandler):
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            handler.app.answered[f"{status // 100}xx"] += 1
            handler.app.http_time.observe(seconds)
        fields["address"] = handler.app.address(request)
        fields["request_id"] = str(handler.request_id)
        if handler.probe:
            level = logging.DEBUG
    log.log(level, "request", extra=fields)
