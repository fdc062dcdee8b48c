"""The errors that the client raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """A call of the client failed; the text says why."""


class NotReachable(ClientError):
    """Nothing answers at the URL."""


class NotAPairingServer(ClientError):
    """Something answers at the URL, but not as the protocol says."""


class ServerError(ClientError):
    """The server refuses: a failed HTTP request, or an `error` message (then `status` is None).

    `retry_after`: seconds until it is worth trying again, if the server says so.
    """

    def __init__(
        self,
        code: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"{code}: {message}" if status is None else f"HTTP {status} {code}: {message}")


class Closed(ClientError):
    """The WebSocket is closed. `code` is None if it broke without a close frame."""

    def __init__(self, code: int | None, reason: str | None) -> None:
        self.code = code
        self.reason = reason
        super().__init__(
            f"the connection was closed with {code or 'no close code'} ({reason or 'no reason'})"
        )


class TimedOut(ClientError):
    """The expected message has not come in time."""


def text(answer: Mapping[str, Any], name: str) -> str:
    """The answer's field of that name. Raises NotAPairingServer if it is no text."""
    value = answer.get(name)
    if not isinstance(value, str):
        raise NotAPairingServer(f"The answer has no text `{name}`.")
    return value
