"""The two seats of a channel: who sits there, as the channel sees it, and whose they are."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pairing_server.errors import PairingServerError
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.send_queue import Lane, SendQueue

OTHER = {"desktop": "mobile", "mobile": "desktop"}


class Member(Protocol):
    """A device in its seat, as the channel sees it."""

    send_queue: SendQueue
    binary_audio: bool
    device_type: str

    @property
    def session_id(self) -> str: ...

    @property
    def subject(self) -> str: ...

    def deliver(
        self, message: bytes, lane: Lane = Lane.MESSAGE, number: int = 0, *, binary: bool = False
    ) -> None:
        """Put an encoded message into what waits for this member."""

    def evict(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        """The member is out of the channel: tell it why, and close its socket if there is a code."""


class SeatOwner(NamedTuple):
    """Whose seat it is: a user's device."""

    subject: str
    session_id: str


class Joined(NamedTuple):
    """`fresh`: the member was not in before. `activated`: now both are, and were not before."""

    fresh: bool
    activated: bool
