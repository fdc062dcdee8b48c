"""What one socket may do when: opened → identified → joined → closed. No I/O.

Messages that need the database are returned to the edge, which asks the services and then calls
`identified`, `entered` or `refreshed`; everything else is done here, without waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from pairing_server.errors import (
    InvalidChannel,
    InvalidMessage,
    InvalidToken,
    NotInChannel,
    PairingServerError,
    RateLimited,
    SlowConsumer,
    Unavailable,
    UnknownType,
    ValidationFailed,
)
from pairing_server.relay import messages, requests
from pairing_server.relay.asking import Asked, Deferred, check_asked
from pairing_server.relay.audio import binary_frames
from pairing_server.relay.audio.binary_frames import BinaryAudio
from pairing_server.relay.channel import Channel
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.identity import Device, Identity
from pairing_server.relay.members import Joined
from pairing_server.relay.messages import encode
from pairing_server.relay.rate_limits import ConnectionRateLimits
from pairing_server.relay.send_queue import SendQueue, Transport
from pairing_server.relay.telling import Telling

if TYPE_CHECKING:
    from pairing_server.relay.hub import Hub

BAD = (InvalidMessage, UnknownType, ValidationFailed)


class Connection(Telling):
    """One socket, from its opening to its close."""

    __slots__ = (
        "__weakref__",
        "_bad_in_a_row",
        "_hub",
        "_identify_by",
        "_limits",
        "_messages",
        "_quota",
        "_reported_bad",
        "_surely_small",
        "_warned",
        "address",
        "address_key",
        "binary_audio",
        "channel",
        "device",
        "device_type",
        "identity",
        "opened_at",
        "received",
        "subject",
    )

    def __init__(
        self, connection_id: UUID, identity: Identity, address: str, address_key: str, transport: Transport,
        hub: Hub, now: float,
    ) -> None:  # fmt: skip
        limits = hub.limits
        send_queue = SendQueue(transport, limits, hub.now, self._overflow, self._gap, hub.waited)
        super().__init__(str(connection_id), transport, send_queue)
        self.identity = identity
        self.subject = identity.subject
        self.device_type = identity.device_type
        self.address = address
        self.address_key = address_key
        self.device: Device | None = None
        self.channel: Channel | None = None
        self.binary_audio = False
        self.received = 0
        self.opened_at = now
        self._hub = hub
        self._limits: ConnectionLimits = limits
        # A text of so many characters is a small enough message, whatever they are: one has four bytes at most.
        self._surely_small = limits.message_size // 4
        self._quota = ConnectionRateLimits(limits, now)
        # Asked for nearly every message.
        self._messages = self._quota.messages
        self._bad_in_a_row = 0
        self._reported_bad = 0
        self._identify_by = now + limits.identify_within
        self._warned = False

    @property
    def session_id(self) -> str:
        if self.device is None:
            raise NotInChannel("Identify or join first.")
        return self.device.session_id

    # From the client

    def receive(self, frame: str | bytes, now: float) -> Deferred | SendQueue | None:
        """Take one message: a text frame's, or audio in a binary one.

        Returns the request if the edge must ask the services for it, or the peer's outbox if that is so full
        that this client should be read no more for now. Raises PairingServerError: the edge calls `refuse`
        with it.
        """
        self.received += 1
        request: requests.Request | None = None
        try:
            rest: Deferred | SendQueue | None
            if isinstance(frame, bytes):
                rest = self._audio_frame(frame, now)
            else:
                small = len(frame) <= self._limits.control_size
                request = requests.decode(frame) if small else self._quota.decode_large(frame, now)
                if type(request) is requests.ChannelMessage:
                    # Nearly every message.
                    if wait := self._messages.take(now):
                        raise RateLimited(wait, limit="messages")
                    if len(frame) > self._surely_small:
                        requests.check(request, requests.size_of(frame), self._limits)
                    channel = self.channel
                    if (
                        channel is None
                        or request.channelId != channel.name
                        or request.channel is not None
                        or request.channel_id is not None
                    ):
                        channel = self._joined(request)
                    rest = channel.relay(self, request.payload, request.id, request.again)
                else:
                    size = requests.size_of(frame)
                    self._quota.take(request, size, now)
                    requests.check(request, size, self._limits)
                    rest = self._do(request, now)
        except PairingServerError as error:
            if isinstance(request, requests.ChannelMessage):
                error.answers = request.id
            if isinstance(error, BAD):
                self._bad_in_a_row += 1
            raise
        self._bad_in_a_row = 0
        return rest

    def _audio_frame(self, frame: bytes, now: float) -> SendQueue | None:
        chunk, size = binary_frames.decode(frame), len(frame)
        self._quota.take_audio(size, now)
        requests.check_size(size, self._limits.audio_size)
        return self._joined(chunk).audio(self, chunk)

    def _do(self, request: requests.Request, now: float) -> Deferred | SendQueue | None:
        if isinstance(request, Asked):
            check_asked(request, self.identity, self.device, joined=self.channel is not None)
            return request
        match request:
            case requests.AudioChunk():
                return self._joined(request).audio(self, request)
            case requests.SettingsSync():
                return self._joined(request).sync(self, request, now)
            case requests.Ping():
                self.deliver(encode(messages.PongAnswer(sequence=request.sequence)))
            case requests.LeaveChannel() | requests.Unpair():
                self._joined(request)
                return request
        return None

    def _joined(self, request: requests._AboutChannel | BinaryAudio) -> Channel:
        """The joined channel, if the message means it."""
        named, channel = request.channel_named, self.channel
        if channel is None:
            raise NotInChannel(**({"channel": named} if named else {}))
        if named is not None and named != channel.name:
            self._hub.report("channel.denied", "denied", self, {"reason": "foreign"})
            raise InvalidChannel(channel=named)
        return channel

    # What the edge brings back from the services

    def identified(self, device: Device) -> None:
        """The session id is this user's. It stays; joining or identifying again undoes nothing."""
        if self.device is None or device.user_agent:
            self.device = device
        self._hub.identified(self)

    def entered(
        self, channel: Channel, request: requests.JoinChannel, now: float, *, degraded: bool = False
    ) -> Joined:
        """The services have admitted this session to the channel: take the seat. Leaves another channel."""
        if self.channel is not None and self.channel is not channel:
            self.leave(now)
        self.channel = channel
        self.binary_audio = request.binary_audio
        joined = channel.join(self, now, request.last_seq, request.epoch, degraded=degraded)
        self._hub.seated(self.subject, self.session_id, channel)
        return joined

    def refreshed(self, identity: Identity, now: float) -> None:
        """A fresh token of the same subject and device type carries the connection on."""
        self.identity = identity
        self._warned = False
        self.deliver(encode(messages.TokenRefreshed(expires_in=round(identity.expires_at - now))))

    def leave(self, now: float) -> Channel | None:
        """Give the seat back; the channel that was left, if any."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.leave(self, "Left the channel", now)
            self.deliver(encode(messages.ChannelLeft(channel=channel.name, channelId=channel.name)))
            self._hub.report("channel.left", "success", self, {"pairing": channel.pairing_id})
        return channel

    # To the client

    def refuse(self, error: PairingServerError, now: float) -> None:
        """Tell the client what was wrong; close if it does not stop."""
        self._hub.counters.refused[error.code] += 1
        if isinstance(error, Unavailable):
            # It has tried; that the server cannot answer is not held against it.
            self._identify_by = now + self._limits.identify_within
        if isinstance(error, RateLimited):
            self._limited(error, now)
        elif isinstance(error, BAD) and self._reported_bad < self._limits.bad_in_a_row:
            self._reported_bad += 1
            self._hub.report("msg.invalid", "failure", self, {"rule": error.code})
        if not isinstance(error, RateLimited) or self._quota.may_tell(now):
            self.tell(error)
        if self._bad_in_a_row >= self._limits.bad_in_a_row:
            self.close(CloseCode.BAD_MESSAGES, "bad messages without end")

    def _limited(self, error: RateLimited, now: float) -> None:
        if self._quota.limited(now):
            self._hub.report("limit.rate", "denied", self, {"scope": "connection", **error.details})
        if self._quota.limited_too_long(now):
            self.tell(error)
            self.close(CloseCode.RATE_LIMITED, "over the rate limit for too long")

    def abuse(self, kind: str) -> None:
        """The frame engine counts too many frames, pings or fragments."""
        self._hub.counters.refused["RATE_LIMITED"] += 1
        self._hub.report("limit.protocol_abuse", "denied", self, {"kind": kind})
        self.close(CloseCode.RATE_LIMITED, f"too many {kind}")

    def evict(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        """The channel has put this session out."""
        channel, self.channel = self.channel, None
        if error is not None:
            self.tell(error)
        if code == CloseCode.REPLACED and channel is not None:
            self._hub.report("channel.replaced", "success", self, {"pairing": channel.pairing_id})
        if code is not None:
            self.close(code, "session replaced" if code == CloseCode.REPLACED else "channel closed")

    def gone(self, reason: str, now: float) -> Channel | None:
        """The socket is closed. The channel it has left by that, if it still had its seat."""
        self.closing = True
        self.send_queue.close()
        channel, self.channel = self.channel, None
        if channel is not None and channel.leave(self, reason, now):
            return channel
        return None

    def _overflow(self, size: int, age: float) -> None:
        self._hub.report(
            "limit.slow_consumer", "failure", self, {"buffered": size, "age_ms": round(age * 1000)}
        )
        self._hub.counters.refused["SLOW_CONSUMER"] += 1
        if self.channel is not None:
            self.channel.peer_slow(self)
        self._transport.write(encode(messages.error_message(SlowConsumer())), False)
        self.close(CloseCode.SLOW_CONSUMER, "slow consumer")

    def _gap(self, first: int, last: int) -> None:
        if self.channel is not None:
            self.channel.audio_gap(self, first, last)

    # What time brings about

    def tick(self, now: float) -> None:
        """Once a second: idle before identify, expiry of the token, a queue that has become too old."""
        self.send_queue.check(now)
        if self.closing:
            return
        if self.device is None and now > self._identify_by:
            self.close(CloseCode.NOT_IDENTIFIED, "neither identified nor joined in time")
            return
        left = self.identity.expires_at - now
        if left <= -self._limits.token_grace:
            self.tell(InvalidToken("The ws token has expired."))
            self.close(CloseCode.INVALID_TOKEN, "token expired")
        elif left <= self._limits.token_warning and not self._warned:
            self._warned = True
            self.deliver(encode(messages.TokenExpiring(expires_in=max(0, round(left)))))
