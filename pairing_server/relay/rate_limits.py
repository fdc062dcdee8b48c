"""How much of what one connection may send, and be told of refusals. Time is an argument."""

from __future__ import annotations

from pairing_server.errors import PayloadTooLarge, RateLimited
from pairing_server.relay import requests
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.token_bucket import TokenBucket

# A pause of so many seconds ends being over a limit.
PAUSE = 2


class ConnectionRateLimits:
    """One connection's buckets, and since when it has been over one of them."""

    __slots__ = (
        "_audio",
        "_audio_bytes",
        "_joins",
        "_limited_at",
        "_limited_since",
        "_limits",
        "_refusals",
        "messages",
    )

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self.messages = TokenBucket(limits.message_rate, limits.message_burst, now)
        self._audio = TokenBucket(limits.audio_rate, limits.audio_rate, now)
        self._audio_bytes = TokenBucket(limits.audio_bytes_rate, limits.audio_bytes_burst, now)
        self._joins = TokenBucket(limits.join_count / limits.join_seconds, limits.join_count, now)
        self._refusals = TokenBucket(limits.refusals_rate, limits.refusals_burst, now)
        self._limits = limits
        self._limited_since: float | None = None
        self._limited_at = now

    def take(self, request: requests.Request, size: int, now: float) -> None:
        """Raises RateLimited if there is more of this than a connection may send."""
        if isinstance(request, requests.AudioChunk):
            self.take_audio(size, now)
            return
        wait, limit = self.messages.take(now), "messages"
        if not wait and isinstance(request, requests.JoinChannel):
            wait, limit = self._joins.take(now), "joins"
        if wait:
            raise RateLimited(wait, limit=limit)

    def decode_large(self, frame: str, now: float) -> requests.Request:
        """As `requests.decode_large`; what is too large for its type counts as a message nevertheless."""
        try:
            return requests.decode_large(frame, self._limits)
        except PayloadTooLarge:
            if wait := self.messages.take(now):
                raise RateLimited(wait, limit="messages") from None
            raise

    def take_audio(self, size: int, now: float) -> None:
        """Raises RateLimited for a chunk too many, or for bytes too many."""
        wait, limit = self._audio.take(now), "audio"
        if not wait:
            wait, limit = self._audio_bytes.take(now, size), "audio_bytes"
        if wait:
            raise RateLimited(wait, limit=limit)

    def may_tell(self, now: float) -> bool:
        """Whether the client may be told of another refusal for going over a limit."""
        return not self._refusals.take(now)

    def limited(self, now: float) -> bool:
        """The client has gone over a limit; whether that is the first time after a pause."""
        first = self._limited_since is None or now - self._limited_at > PAUSE
        if first:
            self._limited_since = now
        self._limited_at = now
        return first

    def limited_too_long(self, now: float) -> bool:
        """Ten seconds over a limit, without a pause, is not an accident."""
        return self._limited_since is not None and now - self._limited_since >= self._limits.limited_for
