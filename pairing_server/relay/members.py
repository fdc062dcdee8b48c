"""The two seats of a channel: the member in one, as the channel sees it, and the device that owns it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from pairing_server.errors import PairingServerError
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.send_queue import Lane

OTHER = {"desktop": "mobile", "mobile": "desktop"}


class Member(Protocol):
    """A device in its seat. Nothing here is about sockets: the connection may be on another node."""

    device_type: str
    binary_audio: bool

    @property
    def subject(self) -> str: ...

    @property
    def session_id(self) -> str: ...

    def send(
        self, message: bytes, lane: Lane = Lane.MESSAGE, number: int = 0, binary: bool = False, /
    ) -> bool:
        """Send an encoded message, without waiting. Whether too much waits for this member now.

        `number`: a relayed message's or an audio chunk's own; 0 for what has none.
        """

    @property
    def first_unsent(self) -> int | None:
        """The number of the first message that could not be sent any more, once the connection is closed."""

    def when_relieved(self, call: Callable[[], None], /) -> None:
        """Call back once when no longer too much waits for this member, or its connection is closed."""

    def remove_from_channel(self, error: PairingServerError | None, code: CloseCode | None, /) -> None:
        """The member is out of the channel: send the error, and close the connection if there is a code."""


class SeatOwner(NamedTuple):
    """The device that owns a seat, and its user."""

    subject: str
    session_id: str


class Joined(NamedTuple):
    """`fresh`: the member was not in before. `activated`: now both are, and were not before."""

    fresh: bool
    activated: bool
