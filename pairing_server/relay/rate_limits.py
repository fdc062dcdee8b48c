"""How much of what one connection may send, and how many refusals it is sent. Time is an argument."""

from __future__ import annotations

from pairing_server.errors import RateLimited
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.requests import size_of
from pairing_server.relay.token_bucket import TokenBucket

# A pause of so many seconds ends the time over a limit.
PAUSE = 2


class ConnectionRateLimits:
    """One connection's buckets, and since when it has exceeded one of them.

    Each `charge_…` takes one frame from its buckets, or raises RateLimited with the name of the `limit`.
    """

    __slots__ = (
        "_audio",
        "_audio_bytes",
        "_exceeded_at",
        "_exceeded_since",
        "_joins",
        "_limits",
        "_messages",
        "_refusals",
        "_services",
    )

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self._messages = TokenBucket(limits.message_rate, limits.message_burst, now)
        self._audio = TokenBucket(limits.audio_rate, limits.audio_rate, now)
        self._audio_bytes = TokenBucket(limits.audio_bytes_rate, limits.audio_bytes_burst, now)
        self._joins = TokenBucket(limits.join_count / limits.join_seconds, limits.join_count, now)
        self._services = TokenBucket(limits.service_count / limits.service_seconds, limits.service_count, now)
        self._refusals = TokenBucket(limits.refusals_rate, limits.refusals_burst, now)
        self._limits = limits
        self._exceeded_since: float | None = None
        self._exceeded_at = now

    def charge_message(self, frame: str | bytes, now: float) -> None:
        if wait := self._messages.take(now):
            raise RateLimited(wait, limit="messages")

    def charge_join(self, frame: str | bytes, now: float) -> None:
        """A join counts as a message, too."""
        self.charge_message(frame, now)
        if wait := self._joins.take(now):
            raise RateLimited(wait, limit="joins")

    def charge_service(self, frame: str | bytes, now: float) -> None:
        """What needs a statement of the database, or a signature to be checked, costs more than other messages."""
        self.charge_message(frame, now)
        if wait := self._services.take(now):
            raise RateLimited(wait, limit="services")

    def charge_audio(self, frame: str | bytes, now: float) -> None:
        """Audio has a rate of its own, in chunks and in bytes, and is no message."""
        if wait := self._audio.take(now):
            raise RateLimited(wait, limit="audio")
        if wait := self._audio_bytes.take(now, size_of(frame)):
            raise RateLimited(wait, limit="audio_bytes")

    def may_send_refusal(self, now: float) -> bool:
        """Whether the client may be sent another refusal for exceeding a limit."""
        return not self._refusals.take(now)

    def note_exceeded(self, now: float) -> bool:
        """The client has exceeded a limit; whether for the first time after a pause."""
        first = self._exceeded_since is None or now - self._exceeded_at > PAUSE
        if first:
            self._exceeded_since = now
        self._exceeded_at = now
        return first

    def exceeded_too_long(self, now: float) -> bool:
        """Whether the client has exceeded a limit for long, without a pause: that is no accident."""
        since = self._exceeded_since
        return since is not None and now - since >= self._limits.limited_for
