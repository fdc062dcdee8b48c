"""The errors of the protocol: one tree, each class with its wire code.

The codes are those of the protocol (docs/protocol.md, "Errors"). HTTP and the WebSocket map them in one table each:
`web/base_handler.py` to an HTTP status, `websocket/handler.py` to an `error` message and, where the protocol names
one, a close code. An error carries only what the other side may know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class PairingServerError(Exception):
    """An error with a wire form: `code`, `details`, and a `message` that says what happened and what to do.

    `retryable` is true if the very same request may succeed later. `answers`: the id that the client gave the
    message that is refused, as JSON, if it did.
    """

    code: ClassVar[str] = "INTERNAL"
    message: ClassVar[str] = "Something failed on the server, and it has been logged. Try again."
    retryable: ClassVar[bool] = False
    answers: bytes | None = None

    def __init__(self, message: str | None = None, **details: object) -> None:
        self.text = message or self.message
        self.details: Mapping[str, object] = details
        super().__init__(self.text)


class Internal(PairingServerError):
    retryable = True


class InvalidRequest(PairingServerError):
    code = "INVALID_REQUEST"
    message = "The request cannot be read. Send one JSON object in UTF-8."


class UpgradeRequired(InvalidRequest):
    message = "This version of the WebSocket protocol is not supported. Send Sec-WebSocket-Version: 13."


class RangeNotSatisfiable(InvalidRequest):
    """`details`: `size` in bytes."""

    message = "The file has no such part. Ask for a range within its size, or for all of it."


class ValidationFailed(PairingServerError):
    """`details`: `fields` (HTTP: field → list of texts) or `field` (WebSocket)."""

    code = "VALIDATION_ERROR"
    message = "Some fields are missing or wrong. Correct them and try again."


class UnsupportedMediaType(PairingServerError):
    code = "UNSUPPORTED_MEDIA_TYPE"
    message = "The body is not declared as JSON. Send Content-Type: application/json."


class PayloadTooLarge(PairingServerError):
    """`details`: `limit`, `size`, both in bytes."""

    code = "PAYLOAD_TOO_LARGE"
    message = "This is larger than the server accepts. Send less at once."


class HeaderTooLarge(PayloadTooLarge):
    message = "The header of this request is larger than the server accepts. Send shorter fields, or fewer."


class Unauthorized(PairingServerError):
    code = "UNAUTHORIZED"
    message = "You are not logged in. Log in and try again."


class InvalidToken(PairingServerError):
    """The token is malformed, expired, not for this use, or not signed by a trusted issuer.

    `reason` is for the audit log only (a closed list); it never goes on the wire, where it would
    help to forge tokens.
    """

    code = "INVALID_TOKEN"
    message = "Your login is not valid here or has expired. Log in again."

    def __init__(self, message: str | None = None, *, reason: str = "malformed", **details: object) -> None:
        super().__init__(message, **details)
        self.reason = reason


class LoginEnded(InvalidToken):
    """The token was valid, but its login has ended since ("revoked") or its account is disabled or gone ("disabled")."""

    _MESSAGES: ClassVar[Mapping[str, str]] = {
        "revoked": "This login has ended. Log in again.",
        "disabled": "The account of this token is disabled or gone. Ask its operator, or log in with another one.",
    }

    def __init__(self, reason: str) -> None:
        super().__init__(self._MESSAGES[reason], reason=reason)


class BadCredentials(PairingServerError):
    code = "UNAUTHORIZED"
    message = "The username or the password is wrong. Check both and try again."


class OriginNotAllowed(PairingServerError):
    code = "ORIGIN_NOT_ALLOWED"
    message = "This page may not use the server. Its operator can allow it with PAIRING_ALLOWED_ORIGINS."


class Forbidden(PairingServerError):
    code = "FORBIDDEN"
    message = "Your account may not do this. Use an account that may."


class TokenMismatch(Forbidden):
    message = "This token is for another account or type of device. Get one for this device."


class NotFound(PairingServerError):
    code = "NOT_FOUND"
    message = "This does not exist, or not any more. Check the address."


class MethodNotAllowed(PairingServerError):
    code = "METHOD_NOT_ALLOWED"
    message = "This address does not take this method. Use one of those in the Allow header."


class InvalidCode(PairingServerError):
    code = "INVALID_CODE"
    message = "This code does not work. It may have expired or been used: ask the desktop for a new one."


class SessionConflict(PairingServerError):
    code = "SESSION_CONFLICT"
    message = "This session id belongs to another account. Use a new random one."


class UsernameTaken(PairingServerError):
    code = "USERNAME_TAKEN"
    message = "This username is taken. Choose another one."


class RateLimited(PairingServerError):
    """`retry_after_s`: seconds until it is worth trying again."""

    code = "RATE_LIMITED"
    message = "Too many requests. Wait a moment and try again."
    retryable = True

    def __init__(self, retry_after_s: float, message: str | None = None, **details: object) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class Unavailable(PairingServerError):
    code = "UNAVAILABLE"
    message = "The server cannot do this at the moment. Try again in a few seconds."
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after_s: float = 2.0, **details: object) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class ConnectedElsewhere(Unavailable):
    """`details`: `channel`, and `reason`, which is "elsewhere"."""

    message = (
        "The other device is connected to another server process, where this one cannot reach it. Connect again"
        " through an address that leads both devices to the same process."
    )


class ConfirmationNeeded(PairingServerError):
    """`retry_after_s`: seconds after which the phone asks again; `details`: `expires_in`, seconds."""

    code = "CONFIRMATION_NEEDED"
    message = "The desktop must confirm this device first. Confirm it there, then try again."
    retryable = True

    def __init__(self, retry_after_s: float, message: str | None = None, **details: object) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class InvalidMessage(PairingServerError):
    code = "INVALID_MESSAGE"
    message = "The message cannot be read. Send a text frame with one JSON object that has a `type`."


class UnknownType(PairingServerError):
    code = "UNKNOWN_TYPE"
    message = "Clients do not send messages of this type. Check `type`."


class InvalidChannel(PairingServerError):
    code = "INVALID_CHANNEL"
    message = "Channel does not exist or has expired"


class ChannelFull(PairingServerError):
    code = "CHANNEL_FULL"
    message = "Maximum number of devices already connected to channel"


class NotInChannel(PairingServerError):
    code = "NOT_IN_CHANNEL"
    message = "This connection is in no channel. Join one first."


class DeviceTypeMismatch(PairingServerError):
    code = "DEVICE_TYPE_MISMATCH"
    message = "This token is for the other type of device. Get one for this type."


class SessionReplaced(PairingServerError):
    code = "SESSION_REPLACED"
    message = "This device has connected again, so this connection is closed. Use the new one."


class SlowConsumer(PairingServerError):
    code = "SLOW_CONSUMER"
    message = "This connection reads too slowly and is closed. Connect again."
    retryable = True
