"""What one socket may do when: opened → identified → joined → closed. No I/O.

A request that needs services is returned, and handled outside the relay; everything else is done here, without waiting.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pairing_server.errors import (
    InvalidChannel,
    InvalidMessage,
    InvalidToken,
    NotInChannel,
    PairingServerError,
    PayloadTooLarge,
    RateLimited,
    SlowConsumer,
    Unavailable,
    UnknownType,
    ValidationFailed,
)
from pairing_server.relay import messages, requests
from pairing_server.relay.audio import binary_frames
from pairing_server.relay.audio.binary_frames import BinaryAudio
from pairing_server.relay.channel import Channel
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.commands import Command, CommandRegistry
from pairing_server.relay.context import RelayContext, RelayEvent
from pairing_server.relay.identity import Device, Identity, Peer
from pairing_server.relay.members import Joined, Member
from pairing_server.relay.message_id import message_id
from pairing_server.relay.rate_limits import ConnectionRateLimits
from pairing_server.relay.send_queue import SendQueue, Transport

# Seconds after which a client that was closed for a flood may connect again.
ABUSE_PAUSE_SECONDS = 10.0
_BAD_MESSAGE = (InvalidMessage, UnknownType, ValidationFailed)


class Connection:
    """One socket, from its opening to its close. To its channel it is a Member."""

    __slots__ = (
        "__weakref__",
        "_bad_in_a_row",
        "_bad_reported",
        "_by_struct",
        "_commands",
        "_context",
        "_decode_json",
        "_expiry_announced",
        "_identify_by",
        "_limits",
        "_rates",
        "_surely_small",
        "_transport",
        "binary_audio",
        "channel",
        "close_code",
        "closing",
        "connection_id",
        "device",
        "device_type",
        "opened_at",
        "peer",
        "received",
        "send",
        "send_queue",
        "subject",
        "uses_additions",
        "when_relieved",
    )

    def __init__(
        self, peer: Peer, transport: Transport, context: RelayContext, commands: CommandRegistry, now: float
    ) -> None:
        limits = context.limits
        self.peer = peer
        self.connection_id = peer.connection_id
        self.subject = peer.identity.subject
        self.device_type = peer.identity.device_type
        self.device: Device | None = None
        self.channel: Channel | None = None
        self.binary_audio = False
        # Whether the client is known to use more than the specification's original messages.
        self.uses_additions = False
        self.closing = False
        self.close_code: CloseCode | None = None
        self.received = 0
        self.opened_at = now
        self.send_queue = SendQueue(transport, context, self._close_slow, self._report_audio_gap)
        # Bound once: they are called for nearly every message.
        self.send = self.send_queue.send
        self.when_relieved = self.send_queue.when_relieved
        self._transport = transport
        self._context = context
        self._commands = commands
        self._by_struct = commands.by_struct
        self._decode_json = commands.decode_json
        self._limits = limits
        # A text of so many characters is small enough for every type: a character has four bytes at most.
        self._surely_small = limits.control_size // 4
        self._rates = ConnectionRateLimits(limits, now)
        self._bad_in_a_row = 0
        self._bad_reported = 0
        self._identify_by = now + limits.identify_within
        self._expiry_announced = False

    @property
    def identity(self) -> Identity:
        return self.peer.identity

    @property
    def session_id(self) -> str:
        """The device's. Raises NotInChannel while that is not known."""
        if self.device is None:
            raise NotInChannel("Identify or join first.")
        return self.device.session_id

    # From the client

    def receive(self, frame: str | bytes, now: float) -> requests.ClientMessage | Member | None:
        """Handle one message: a text frame, or audio in a binary one.

        Returns the request if services must handle it, or the peer if so much waits for it that this client should
        be read no more for now. Raises PairingServerError, to be passed to `refuse`.
        """
        self.received += 1
        # A ClientMessage; its command fits its type, which the types here cannot say.
        request: Any
        result: requests.ClientMessage | Member | None
        try:
            if not isinstance(frame, str):
                result = self._receive_audio(frame, now)
            else:
                size = len(frame)
                if size <= self._limits.control_size:
                    try:
                        request = self._decode_json(frame)
                    except requests.DECODE_ERRORS as error:
                        raise self._commands.refusal_of(error) from None
                else:
                    request = self._decode_large(frame, now)
                if not self.uses_additions and request.is_addition:
                    self.uses_additions = True
                command = self._by_struct[type(request)]
                command.charge(self._rates, frame, now)
                if size > self._surely_small:
                    command.check_size(frame, self._limits)
                if command.check_content is not None:
                    command.check_content(request, self._limits)
                if command.on_channel is None:
                    result = self._handle_here(command, request)
                else:
                    # Nearly every message; most name the joined channel once or twice, or not at all.
                    channel = self.channel
                    if (
                        channel is None
                        or ((name := request.channelId) is not None and name != channel.name)
                        or ((name := request.channel) is not None and name != channel.name)
                        or request.channel_id is not None
                    ):
                        channel = self.joined_channel(request)
                    result = command.on_channel(channel, self, request, now)
        except _BAD_MESSAGE:
            self._bad_in_a_row += 1
            raise
        self._bad_in_a_row = 0
        return result

    def _handle_here(
        self, command: Command[Any], request: requests.ClientMessage
    ) -> requests.ClientMessage | None:
        """What needs no channel: answer it, or return it for services."""
        if command.precondition is not None:
            command.precondition(self, request)
        if command.reply is not None:
            self.send_message(command.reply(request))
        return None if command.serve is None else request

    def _decode_large(self, frame: str, now: float) -> requests.ClientMessage:
        try:
            return self._commands.decode_large(frame, self._limits)
        except PayloadTooLarge:
            # It counts as a message nevertheless.
            self._rates.charge_message(frame, now)
            raise

    def _receive_audio(self, frame: bytes, now: float) -> Member | None:
        """A binary frame is another form of an AudioChunk, with the same limits."""
        self.uses_additions = True
        command = self._by_struct[requests.AudioChunk]
        chunk = binary_frames.decode(frame)
        command.charge(self._rates, frame, now)
        command.check_size(frame, self._limits)
        return self.joined_channel(chunk).forward_audio(self, chunk, now)

    def joined_channel(self, request: requests.ChannelRequest | BinaryAudio) -> Channel:
        """The joined channel. Raises NotInChannel, or InvalidChannel if the request names another."""
        named, channel = request.channel_named, self.channel
        if channel is None:
            raise NotInChannel(**({"channel": named} if named else {}))
        if named is not None and named != channel.name:
            self._report("channel.denied", "denied", reason="foreign")
            raise InvalidChannel(channel=named)
        return channel

    # What services have allowed

    def identify(self, device: Device) -> None:
        """The device has proved its session id, which stays. Joining or identifying again undoes nothing."""
        if self.device is None or device.user_agent:
            self.device = device

    def join(
        self, channel: Channel, request: requests.JoinChannel, now: float, *, degraded: bool = False
    ) -> Joined:
        """Take the seat in the channel, and leave another channel."""
        if self.channel is not None and self.channel is not channel:
            self.leave(now)
        self.channel = channel
        self.binary_audio = request.binary_audio
        return channel.join(self, now, request.last_seq, request.epoch, degraded=degraded)

    def leave(self, now: float) -> Channel | None:
        """Give the seat back; the channel that was left, if any."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.leave(self, "Left the channel", now)
            self.send_message(messages.ChannelLeft(channel=channel.name))
            self._report("channel.left", "success", channel)
        return channel

    def renew(self, identity: Identity, now: float) -> None:
        """A fresh token of the same subject and device type carries the connection on."""
        self.peer = replace(self.peer, identity=identity)
        self._expiry_announced = False
        left = round(identity.expires_at - now)
        self.send_message(messages.TokenRefreshed(expires_in=left))

    # To the client

    def send_message(self, message: messages.ServerMessage) -> None:
        self.send(messages.encode(message))

    def refuse(self, error: PairingServerError, frame: str | bytes, now: float) -> None:
        """Send the error for the message in that frame, which is refused, and close if too many are."""
        error.answers = message_id(frame)
        self._context.counters.refused[error.code] += 1
        if isinstance(error, Unavailable):
            # The client has tried; the server's failure does not cost it its time.
            self._identify_by = now + self._limits.identify_within
        if isinstance(error, RateLimited):
            self._note_exceeded_rate(error, now)
        elif isinstance(error, _BAD_MESSAGE) and self._bad_reported < self._limits.bad_in_a_row:
            self._bad_reported += 1
            self._report("msg.invalid", "failure", rule=error.code)
        if not isinstance(error, RateLimited) or self._rates.may_send_refusal(now):
            self.send_message(messages.error_message(error))
        if self._bad_in_a_row >= self._limits.bad_in_a_row:
            self.close(CloseCode.BAD_MESSAGES, "bad messages without end")

    def _note_exceeded_rate(self, error: RateLimited, now: float) -> None:
        if self._rates.note_exceeded(now):
            self._report("limit.rate", "denied", None, scope="connection", **error.details)
        if self._rates.exceeded_too_long(now):
            self.close(CloseCode.RATE_LIMITED, "over the rate limit for too long", error)

    # The end

    def close(self, code: CloseCode, reason: str, error: PairingServerError | None = None) -> None:
        """Send the error, if any, and decide to close: nothing more is taken from or sent to the client."""
        if not self.closing:
            if error is not None:
                self.send_message(messages.error_message(error))
            self.closing = True
            self.close_code = code
            self.send_queue.close()
            self._transport.close(code, reason)

    def close_for_restart(self, reason: str = "server restarts") -> None:
        """Close so that the client comes back.

        The original clients do so only when their connection breaks: they take any close frame for the end. So only a
        client that uses an addition to their protocol gets one.
        """
        if self.uses_additions:
            self.close(CloseCode.RESTART, reason)
        elif not self.closing:
            self.closing = True
            self.close_code = CloseCode.RESTART
            self.send_queue.close()
            self._transport.drop()

    def close_for_abuse(self, kind: str) -> None:
        """The frame engine has counted too many frames, pings or fragments."""
        self._context.counters.refused["RATE_LIMITED"] += 1
        self._report("limit.protocol_abuse", "denied", kind=kind)
        error = RateLimited(
            ABUSE_PAUSE_SECONDS, f"Too many {kind}. Connect again later, and send less.", limit=kind
        )
        self.close(CloseCode.RATE_LIMITED, f"too many {kind}", error)

    def remove_from_channel(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        """The channel has taken this connection out (see Member)."""
        channel, self.channel = self.channel, None
        if error is not None:
            self.send_message(messages.error_message(error))
        if code == CloseCode.REPLACED and channel is not None:
            self._report("channel.replaced", "success", channel)
        if code == CloseCode.RESTART:
            self.close_for_restart("channel moved")
        elif code is not None:
            self.close(code, "session replaced" if code == CloseCode.REPLACED else "channel closed")

    def disconnect(self, reason: str, now: float) -> Channel | None:
        """The socket is closed. The channel that it has left by that, if it still had its seat."""
        self.closing = True
        self.send_queue.close()
        channel, self.channel = self.channel, None
        if channel is not None and channel.leave(self, reason, now):
            return channel
        return None

    # What the send queue reports

    @property
    def first_unsent(self) -> int | None:
        return self.send_queue.first_unsent

    def _close_slow(self, size: int, age: float) -> None:
        self._report("limit.slow_consumer", "failure", buffered=size, age_ms=round(age * 1000))
        self._context.counters.refused["SLOW_CONSUMER"] += 1
        if self.channel is not None:
            self.channel.announce_slow(self)
        # Past the queue, which takes nothing more.
        self._transport.write(messages.encode(messages.error_message(SlowConsumer())), False)
        self.close(CloseCode.SLOW_CONSUMER, "slow consumer")

    def _report_audio_gap(self, first: int, last: int) -> None:
        if self.channel is not None:
            self.channel.announce_audio_gap(self, first, last)

    def check_timeouts(self, now: float) -> None:
        """Once a second: the time to identify, the token's expiry, a queue that has become too old."""
        self.send_queue.check_overflow(now)
        if self.closing:
            return
        if self.device is None and now > self._identify_by:
            self.close(CloseCode.NOT_IDENTIFIED, "neither identified nor joined in time")
            return
        left = self.identity.expires_at - now
        if left <= -self._limits.token_grace:
            expired = InvalidToken("The ws token has expired. Get a fresh one, then connect again.")
            self.close(CloseCode.INVALID_TOKEN, "token expired", expired)
        elif left <= self._limits.token_warning and not self._expiry_announced:
            self._expiry_announced = True
            self.send_message(messages.TokenExpiring(expires_in=max(0, round(left))))

    def _report(self, event: str, outcome: str, channel: Channel | None = None, **attributes: object) -> None:
        about = channel or self.channel
        pairing_id = None if about is None else about.pairing_id
        self._context.report(RelayEvent(event, outcome, self.peer, pairing_id, attributes))
