"""What there is to know of each type of client message, and the registry that a connection looks it up in.

The rows are in websocket/commands.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Generic, Literal, TypeVar

from pairing_server.errors import PayloadTooLarge
from pairing_server.relay.channel import Channel
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.members import Member
from pairing_server.relay.messages import ServerMessage
from pairing_server.relay.preconditions import Sender
from pairing_server.relay.rate_limits import ConnectionRateLimits
from pairing_server.relay.requests import ClientMessage, RequestDecoder, size_of

R = TypeVar("R", bound=ClientMessage)


@dataclass(frozen=True, slots=True)
class Command(Generic[R]):
    """One type of client message. What has none of the three handlers is accepted and ignored."""

    struct: type[R]
    _: KW_ONLY
    # The field of ConnectionLimits that says how many bytes it may have.
    size_limit: Literal["control_size", "message_size", "audio_size"] = "control_size"
    # Takes it from the buckets that it counts in.
    charge: Callable[[ConnectionRateLimits, str | bytes, float], None] = ConnectionRateLimits.charge_message
    # Checks what the struct's types cannot say.
    check_content: Callable[[R, ConnectionLimits], None] | None = None
    # What must be true of the connection; of one with `on_channel`, that it has joined.
    precondition: Callable[[Sender, R], None] | None = None
    # Handled at once on the joined channel. Returns the peer if too much waits for it.
    on_channel: Callable[[Channel, Member, R, float], Member | None] | None = None
    # Answered at once by that message.
    reply: Callable[[R], ServerMessage] | None = None
    # Handled by services, outside the relay: called with a websocket.commands.CommandContext.
    serve: Callable[[Any, R], Awaitable[None]] | None = None

    def check_size(self, frame: str | bytes, limits: ConnectionLimits) -> None:
        """Raises PayloadTooLarge with `limit` and `size`."""
        limit: int = getattr(limits, self.size_limit)
        # A character has four bytes at most, so most frames need not be measured.
        if len(frame) * 4 > limit and (size := size_of(frame)) > limit:
            raise PayloadTooLarge(limit=limit, size=size)


class CommandRegistry:
    """All commands, by the struct of their message."""

    def __init__(self, *commands: Command[Any]) -> None:
        self.by_struct: dict[type[ClientMessage], Command[Any]] = {
            command.struct: command for command in commands
        }
        large = [command.struct for command in commands if command.size_limit != "control_size"]
        decoder = RequestDecoder(list(self.by_struct), large)
        self.decode = decoder.decode
        self.decode_json = decoder.decode_json
        self.refusal_of = decoder.refusal_of
        self.decode_large = decoder.decode_large
