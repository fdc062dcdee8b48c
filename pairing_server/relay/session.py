"""What one socket may do when: opened → identified → joined → closed. No I/O.

Messages that need the database are returned to the edge, which asks the services and then calls
`identified`, `entered` or `refreshed`; everything else is done here, without waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from pairing_server.errors import (
    DeviceTypeMismatch,
    Forbidden,
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
from pairing_server.relay import binary, messages, requests
from pairing_server.relay.binary import BinaryAudio
from pairing_server.relay.channel import Channel
from pairing_server.relay.closing import CloseCode
from pairing_server.relay.limits import RelayLimits, TokenBucket
from pairing_server.relay.messages import encode
from pairing_server.relay.outbox import Lane, Outbox, Transport
from pairing_server.relay.seats import Joined

if TYPE_CHECKING:
    from pairing_server.relay.hub import Hub

BAD = (InvalidMessage, UnknownType, ValidationFailed)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who opened the socket, from its token. `expires_at`: monotonic seconds."""

    subject: str
    device_type: str
    token_id: str
    login_id: str
    label: str | None
    expires_at: float
    logged_in_at: datetime


@dataclass(frozen=True, slots=True)
class Device:
    """The device behind the socket, bound to the subject."""

    session_id: str
    user_agent: str | None = None


Deferred = (
    requests.Identify
    | requests.JoinChannel
    | requests.LeaveChannel
    | requests.Unpair
    | requests.PairingConfirm
    | requests.PairingReject
    | requests.RefreshToken
)


class Session:
    """One socket, from its opening to its close."""

    __slots__ = (
        "__weakref__",
        "_audio",
        "_audio_bytes",
        "_bad_in_a_row",
        "_hub",
        "_identify_by",
        "_joins",
        "_limited_at",
        "_limited_since",
        "_limits",
        "_messages",
        "_refusals",
        "_reported_bad",
        "_surely_small",
        "_transport",
        "_warned",
        "address",
        "address_key",
        "binary_audio",
        "channel",
        "close_code",
        "closing",
        "connection_id",
        "device",
        "device_type",
        "identity",
        "opened_at",
        "outbox",
        "received",
        "subject",
    )

    def __init__(
        self, connection_id: UUID, identity: Identity, address: str, address_key: str, transport: Transport,
        hub: Hub, now: float,
    ) -> None:  # fmt: skip
        limits = hub.limits
        self.connection_id = str(connection_id)
        self.identity = identity
        self.subject = identity.subject
        self.device_type = identity.device_type
        self.address = address
        self.address_key = address_key
        self.device: Device | None = None
        self.channel: Channel | None = None
        self.binary_audio = False
        self.closing = False
        self.close_code: CloseCode | None = None
        self.received = 0
        self.opened_at = now
        self._hub = hub
        self._limits: RelayLimits = limits
        # A text of so many characters is a small enough message, whatever they are: one has four bytes at most.
        self._surely_small = limits.message_size // 4
        self._transport = transport
        self.outbox = Outbox(transport, limits, hub.now, self._overflow, self._gap, hub.waited)
        self._messages = TokenBucket(limits.message_rate, limits.message_burst, now)
        self._audio = TokenBucket(limits.audio_rate, limits.audio_rate, now)
        self._audio_bytes = TokenBucket(limits.audio_bytes_rate, limits.audio_bytes_burst, now)
        self._joins = TokenBucket(limits.join_count / limits.join_seconds, limits.join_count, now)
        self._refusals = TokenBucket(limits.refusals_rate, limits.refusals_burst, now)
        self._bad_in_a_row = 0
        self._reported_bad = 0
        self._limited_since: float | None = None
        self._limited_at = now
        self._identify_by = now + limits.identify_within
        self._warned = False

    @property
    def session_id(self) -> str:
        if self.device is None:
            raise NotInChannel("Identify or join first.")
        return self.device.session_id

    # From the client

    def receive(self, frame: str | bytes, now: float) -> Deferred | Outbox | None:
        """Take one message: a text frame's, or audio in a binary one.

        Returns the request if the edge must ask the services for it, or the peer's outbox if that is so full
        that this client should be read no more for now. Raises PairingServerError: the edge calls `refuse`
        with it.
        """
        self.received += 1
        request: requests.Request | None = None
        try:
            rest: Deferred | Outbox | None
            if isinstance(frame, bytes):
                rest = self._audio_frame(frame, now)
            else:
                if len(frame) <= self._limits.control_size:
                    request = requests.decode(frame)
                else:
                    request = self._large(frame, now)
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
                    self._take(request, size, now)
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

    def _large(self, frame: str, now: float) -> requests.Request:
        """As `requests.decode`; what is too large for its type counts as a message nevertheless."""
        try:
            return requests.decode_large(frame, self._limits)
        except PayloadTooLarge:
            if wait := self._messages.take(now):
                raise RateLimited(wait, limit="messages") from None
            raise

    def _audio_frame(self, frame: bytes, now: float) -> Outbox | None:
        chunk, size = binary.decode(frame), len(frame)
        self._take_audio(size, now)
        requests.check_size(size, self._limits.audio_size)
        return self._joined(chunk).audio(self, chunk)

    def _take(self, request: requests.Request, size: int, now: float) -> None:
        """Raises RateLimited if there is more of this than a connection may send."""
        if isinstance(request, requests.AudioChunk):
            self._take_audio(size, now)
            return
        wait, limit = self._messages.take(now), "messages"
        if not wait and isinstance(request, requests.JoinChannel):
            wait, limit = self._joins.take(now), "joins"
        if wait:
            raise RateLimited(wait, limit=limit)

    def _take_audio(self, size: int, now: float) -> None:
        wait, limit = self._audio.take(now), "audio"
        if not wait:
            wait, limit = self._audio_bytes.take(now, size), "audio_bytes"
        if wait:
            raise RateLimited(wait, limit=limit)

    def _do(self, request: requests.Request, now: float) -> Deferred | Outbox | None:
        match request:
            case requests.AudioChunk():
                return self._joined(request).audio(self, request)
            case requests.SettingsSync():
                return self._joined(request).sync(self, request, now)
            case requests.Ping():
                self.deliver(encode(messages.PongAnswer(sequence=request.sequence)))
            case requests.Identify():
                self._check_device(request.device_type, request.session_id)
                return request
            case requests.JoinChannel():
                self._check_join(request)
                return request
            case requests.LeaveChannel() | requests.Unpair():
                self._joined(request)
                return request
            case requests.RefreshToken():
                return request
            case requests.PairingConfirm() | requests.PairingReject():
                self._check_answer(request)
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

    def _check_answer(self, request: requests.PairingConfirm | requests.PairingReject) -> None:
        """Raises Forbidden, NotInChannel, ValidationFailed."""
        if self.device_type != "desktop":
            raise Forbidden("The desktop that shows the code answers this.")
        if self.device is None:
            raise NotInChannel("Identify or join first.")
        if request.channel_named is None and self.channel is None:
            raise ValidationFailed("channel is missing.", field="channel")

    def _check_device(self, device_type: str, session_id: str) -> None:
        if device_type != self.identity.device_type:
            raise DeviceTypeMismatch(device_type=device_type, token_device_type=self.identity.device_type)
        if self.device is not None and self.device.session_id != session_id:
            raise ValidationFailed("This connection has another session_id already.", field="session_id")

    def _check_join(self, request: requests.JoinChannel) -> None:
        if request.channel_named is None:
            raise ValidationFailed("channel is missing.", field="channel")
        session_id = request.session_id or (self.device.session_id if self.device else None)
        if session_id is None:
            raise ValidationFailed(
                "session_id is missing; identify first or name it here.", field="session_id"
            )
        self._check_device(request.device_type or self.identity.device_type, session_id)

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

    def deliver(
        self, message: bytes, lane: Lane = Lane.MESSAGE, number: int = 0, *, binary: bool = False
    ) -> None:
        self.outbox.send(message, lane, number, binary)

    def asked_to_confirm(self, channel: str, device: str, address: str, expires_in: int) -> None:
        """A phone that has sent the code of that channel waits for this desktop's word."""
        asked = messages.PairingRequest(
            channel=channel, channelId=channel, device=device, address=address, expires_in=expires_in
        )
        self.deliver(encode(asked))

    def greet(self) -> None:
        self.deliver(encode(messages.Connected(client_id=self.connection_id)))

    def identified_answer(self, request: requests.Identify) -> None:
        self.deliver(
            encode(messages.Identified(device_type=request.device_type, session_id=request.session_id))
        )

    def refuse(self, error: PairingServerError, now: float) -> None:
        """Tell the client what was wrong; close if it does not stop."""
        self._hub.counts.refused[error.code] += 1
        if isinstance(error, Unavailable):
            # It has tried; that the server cannot answer is not held against it.
            self._identify_by = now + self._limits.identify_within
        if isinstance(error, RateLimited):
            self._limited(error, now)
        elif isinstance(error, BAD) and self._reported_bad < self._limits.bad_in_a_row:
            self._reported_bad += 1
            self._hub.report("msg.invalid", "failure", self, {"rule": error.code})
        if not isinstance(error, RateLimited) or not self._refusals.take(now):
            self.deliver(encode(messages.error_message(error)))
        if self._bad_in_a_row >= self._limits.bad_in_a_row:
            self.close(CloseCode.BAD_MESSAGES, "bad messages without end")

    def _limited(self, error: RateLimited, now: float) -> None:
        """Ten seconds over a limit, without a pause of two, is not an accident."""
        if self._limited_since is None or now - self._limited_at > 2:
            self._limited_since = now
            self._hub.report("limit.rate", "denied", self, {"scope": "connection", **error.details})
        self._limited_at = now
        if now - self._limited_since >= self._limits.limited_for:
            self.deliver(encode(messages.error_message(error)))
            self.close(CloseCode.RATE_LIMITED, "over the rate limit for too long")

    def abuse(self, kind: str) -> None:
        """The frame engine counts too many frames, pings or fragments."""
        self._hub.counts.refused["RATE_LIMITED"] += 1
        self._hub.report("limit.protocol_abuse", "denied", self, {"kind": kind})
        self.close(CloseCode.RATE_LIMITED, f"too many {kind}")

    def evict(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        """The channel has put this session out."""
        channel, self.channel = self.channel, None
        if error is not None:
            self.deliver(encode(messages.error_message(error)))
        if code == CloseCode.REPLACED and channel is not None:
            self._hub.report("channel.replaced", "success", self, {"pairing": channel.pairing_id})
        if code is not None:
            self.close(code, "session replaced" if code == CloseCode.REPLACED else "channel closed")

    def close(self, code: CloseCode, reason: str) -> None:
        """Decide to close: nothing more is taken from or sent to the client."""
        if not self.closing:
            self.closing = True
            self.close_code = code
            self.outbox.close()
            self._transport.close(code, reason)

    def log_out(self) -> None:
        """The login that this connection is from has been ended."""
        self.deliver(encode(messages.error_message(InvalidToken("This login has been ended; log in again."))))
        self.close(CloseCode.INVALID_TOKEN, "login ended")

    def gone(self, reason: str, now: float) -> Channel | None:
        """The socket is closed. The channel it has left by that, if it still had its seat."""
        self.closing = True
        self.outbox.close()
        channel, self.channel = self.channel, None
        if channel is not None and channel.leave(self, reason, now):
            return channel
        return None

    def _overflow(self, size: int, age: float) -> None:
        self._hub.report(
            "limit.slow_consumer", "failure", self, {"buffered": size, "age_ms": round(age * 1000)}
        )
        self._hub.counts.refused["SLOW_CONSUMER"] += 1
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
        self.outbox.check(now)
        if self.closing:
            return
        if self.device is None and now > self._identify_by:
            self.close(CloseCode.NOT_IDENTIFIED, "neither identified nor joined in time")
            return
        left = self.identity.expires_at - now
        if left <= -self._limits.token_grace:
            self.deliver(encode(messages.error_message(InvalidToken("The ws token has expired."))))
            self.close(CloseCode.INVALID_TOKEN, "token expired")
        elif left <= self._limits.token_warning and not self._warned:
            self._warned = True
            self.deliver(encode(messages.TokenExpiring(expires_in=max(0, round(left)))))
