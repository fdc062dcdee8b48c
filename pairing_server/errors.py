"""What can go wrong: one tree, each error with its wire code.

The codes are those of the protocol (docs/protocol.md, "Errors"). HTTP and the WebSocket map them in one table each:
`web/base_handler.py` to an HTTP status, `websocket/handler.py` to an `error` message and, where the protocol names
one, a close code. An error carries only what the other side may know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class PairingServerError(Exception):
    """An error of ours: `code` and `details` go on the wire, `message` says what to do.

    `retryable` is true if the very same request may succeed later. `answers`: the id that the client gave the
    message that is refused, if it did.
    """

    code: ClassVar[str] = "INTERNAL"
    message: ClassVar[str] = "The server failed; it has been logged. Try again."
    retryable: ClassVar[bool] = False
    answers: str | int | None = None

    def __init__(self, message: str | None = None, **details: object) -> None:
        self.text = message or self.message
        self.details: Mapping[str, object] = details
        super().__init__(self.text)


class Internal(PairingServerError):
    retryable = True


class InvalidRequest(PairingServerError):
    code = "INVALID_REQUEST"
    message = "The body must be one JSON object in UTF-8."


class ValidationFailed(PairingServerError):
    """`details`: `fields` (HTTP: field → list of texts) or `field` (WebSocket)."""

    code = "VALIDATION_ERROR"
    message = "Some fields are missing or have a wrong value."


class UnsupportedMediaType(PairingServerError):
    code = "UNSUPPORTED_MEDIA_TYPE"
    message = "Send Content-Type: application/json."


class PayloadTooLarge(PairingServerError):
    """`details`: `limit`, `size`, both in bytes."""

    code = "PAYLOAD_TOO_LARGE"
    message = "That is larger than the limit; send less at once."


class Unauthorized(PairingServerError):
    code = "UNAUTHORIZED"
    message = "Send Authorization: Bearer <access token>; POST /api/auth/login answers with one."


class InvalidToken(PairingServerError):
    """The token is malformed, expired, not for this use, or not signed by a trusted issuer.

    `reason` is for the audit log only (a closed list); it never goes on the wire, where it would
    help whoever forges tokens.
    """

    code = "INVALID_TOKEN"
    message = "The token is not valid here or has expired; get a fresh one."

    def __init__(self, message: str | None = None, *, reason: str = "malformed", **details: object) -> None:
        super().__init__(message, **details)
        self.reason = reason


class BadCredentials(PairingServerError):
    code = "UNAUTHORIZED"
    message = "The username or the password is wrong."


class OriginNotAllowed(PairingServerError):
    code = "ORIGIN_NOT_ALLOWED"
    message = "This origin is not in PAIRING_ALLOWED_ORIGINS."


class Forbidden(PairingServerError):
    code = "FORBIDDEN"
    message = "This is not yours to do."


class NotFound(PairingServerError):
    code = "NOT_FOUND"
    message = "There is nothing here."


class MethodNotAllowed(PairingServerError):
    code = "METHOD_NOT_ALLOWED"
    message = "This endpoint does not take that method; see Allow."


class InvalidCode(PairingServerError):
    code = "INVALID_CODE"
    message = (
        "No pairing waits for this code. A code works once, for five minutes after it was made, and only"
        " for the account that made it (unless the server's redeem policy says otherwise)."
    )


class SessionConflict(PairingServerError):
    code = "SESSION_CONFLICT"
    message = "This session id belongs to another user; choose a fresh random one."


class UsernameTaken(PairingServerError):
    code = "USERNAME_TAKEN"
    message = "This username is taken."


class RateLimited(PairingServerError):
    """`retry_after_s`: seconds until it is worth trying again."""

    code = "RATE_LIMITED"
    message = "Too many of these; slow down."
    retryable = True

    def __init__(self, retry_after_s: float, message: str | None = None, **details: object) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class Unavailable(PairingServerError):
    code = "UNAVAILABLE"
    message = "The server cannot do that just now; try again after the time in Retry-After."
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after_s: float = 2.0, **details: object) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class ConfirmationNeeded(PairingServerError):
    """`retry_after_s`: seconds after which the phone asks again; `details`: `expires_in`, seconds."""

    code = "CONFIRMATION_NEEDED"
    message = "The desktop is asked whether it wants this device. Confirm it there; then send the same request again."
    retryable = True

    def __init__(self, retry_after_s: float, message: str | None = None, **details: object) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class InvalidMessage(PairingServerError):
    code = "INVALID_MESSAGE"
    message = "A message must be a text frame with one JSON object that has a `type`."


class UnknownType(PairingServerError):
    code = "UNKNOWN_TYPE"
    message = "Clients do not send messages of this type."


class InvalidChannel(PairingServerError):
    code = "INVALID_CHANNEL"
    message = "Channel does not exist or has expired"


class ChannelFull(PairingServerError):
    code = "CHANNEL_FULL"
    message = "Maximum number of devices already connected to channel"


class NotInChannel(PairingServerError):
    code = "NOT_IN_CHANNEL"
    message = "Join a channel first."


class DeviceTypeMismatch(PairingServerError):
    code = "DEVICE_TYPE_MISMATCH"
    message = "The token was made for the other type of device."


class SessionReplaced(PairingServerError):
    code = "SESSION_REPLACED"
    message = "The same session has connected again; this connection is closed."


class SlowConsumer(PairingServerError):
    code = "SLOW_CONSUMER"
    message = "This connection does not read fast enough and is closed; reconnect."
    retryable = True
