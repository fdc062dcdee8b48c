"""The one form that errors have over HTTP: status, headers and body. Also of what is refused below any handler.

Tornado refuses a request that it cannot read with a bare 400, and one whose header is too large with nothing;
web/lingering.py sends the bytes of `whole_answer` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from uuid import UUID

from pairing_server.errors import (
    ConfirmationNeeded,
    HeaderTooLarge,
    InvalidRequest,
    PairingServerError,
    PayloadTooLarge,
    RangeNotSatisfiable,
    RateLimited,
    Unavailable,
    UpgradeRequired,
)

STATUS: dict[str, int] = {
    "INVALID_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "INVALID_TOKEN": 401,
    "ORIGIN_NOT_ALLOWED": 403,
    "FORBIDDEN": 403,
    "INVALID_CODE": 404,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "SESSION_CONFLICT": 409,
    "USERNAME_TAKEN": 409,
    "CONFIRMATION_NEEDED": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "VALIDATION_ERROR": 422,
    "RATE_LIMITED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}
# Where HTTP has a status of its own for what is wrong.
_OWN_STATUS: dict[type[PairingServerError], int] = {
    HeaderTooLarge: 431,
    RangeNotSatisfiable: 416,
    UpgradeRequired: 426,
}

# What Tornado writes for a request that it cannot read.
BARE_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
# Its words for a body that is larger than it reads.
_TOO_LARGE = ("Content-Length too long", "chunked body too large")


def status_of(error: PairingServerError) -> int:
    return _OWN_STATUS.get(type(error), STATUS[error.code])


def default_headers(request_id: UUID) -> dict[str, str]:
    """What every answer has."""
    return {
        "Server": "pairing-server",
        "X-Request-ID": str(request_id),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def error_headers(error: PairingServerError) -> dict[str, str]:
    """What the answer with this error has besides."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if isinstance(error, RateLimited | Unavailable | ConfirmationNeeded):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s + 0.5)))
    if status_of(error) == HTTPStatus.UNAUTHORIZED:
        scheme = 'Bearer error="invalid_token"' if error.code == "INVALID_TOKEN" else "Bearer"
        headers["WWW-Authenticate"] = scheme
    if isinstance(error, UpgradeRequired):
        headers |= {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.details['size']}"
    return headers


def error_body(error: PairingServerError) -> str:
    body: Mapping[str, object] = {
        "success": False,
        "error": error.code,
        "message": error.text,
        "details": error.details,
    }
    return json.dumps(body, ensure_ascii=False, default=str)


def whole_answer(error: PairingServerError, request_id: UUID, now: datetime) -> bytes:
    """The bytes of an answer after which the connection is closed."""
    body = error_body(error).encode("utf-8", "backslashreplace")
    status = HTTPStatus(status_of(error))
    headers = {
        **default_headers(request_id),
        **error_headers(error),
        "Date": format_datetime(now, usegmt=True),
        "Connection": "close",
        "Content-Length": str(len(body)),
    }
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def unreadable(cause: BaseException | None, body_size: int) -> PairingServerError:
    """What is wrong with a request that Tornado refuses for that cause. `body_size`: what a body may have."""
    reason = str(cause or "")[:200]
    if reason in _TOO_LARGE:
        return PayloadTooLarge(limit=body_size)
    why = f": {reason}" if reason else ""
    return InvalidRequest(
        f"This is no request that the server can read{why}. Send HTTP/1.1 as RFC 9112 has it."
    )
