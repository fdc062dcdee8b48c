"""What waits to be sent to one connection: bounded in bytes and age, never waited for.

The transport takes a little at a time; the rest waits here, where audio can still be dropped and
settings be replaced by newer ones. Messages are never dropped silently: a connection that does not
read them is closed, comes back and is told what it missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from pairing_server.relay.limits import RelayLimits


class Lane(Enum):
    MESSAGE = "message"
    SETTINGS = "settings"
    AUDIO = "audio"


class Transport(Protocol):
    """What carries bytes to the client."""

    def write(self, message: bytes, written: Callable[[], None]) -> None:
        """Hand over one text message; `written` is called when the kernel has taken it."""

    def write_binary(self, message: bytes, written: Callable[[], None]) -> None:
        """The same for a binary message."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake. Nothing more is written or received."""


class Entry(NamedTuple):
    lane: Lane
    message: bytes
    queued_at: float
    number: int
    binary: bool


class Outbox:
    """The queue of one connection. `on_overflow` is called once, when it has become too long or too old."""

    __slots__ = (
        "_entries",
        "_flights",
        "_in_flight",
        "_limits",
        "_on_overflow",
        "_overflowed",
        "_pumping",
        "_queued",
        "_relieved",
        "_transport",
        "on_gap",
    )

    def __init__(
        self, transport: Transport, limits: RelayLimits, on_overflow: Callable[[int, float], None]
    ) -> None:
        self._transport = transport
        self._limits = limits
        self._on_overflow = on_overflow
        self._entries: deque[Entry] = deque()
        self._queued = 0
        self._in_flight = 0
        # Size of each message in flight, and since when it has waited.
        self._flights: deque[tuple[int, float]] = deque()
        self._overflowed = False
        self._pumping = False
        self._relieved: list[Callable[[], None]] = []
        self.on_gap: Callable[[int, int], None] | None = None

    @property
    def size(self) -> int:
        """Bytes not yet taken by the kernel."""
        return self._queued + self._in_flight

    @property
    def congested(self) -> bool:
        """Whether those who send to this connection should be read no more for now."""
        return self.size >= self._limits.queue_pause

    def send(
        self,
        message: bytes,
        now: float,
        lane: Lane = Lane.MESSAGE,
        number: int = 0,
        *,
        binary: bool = False,
    ) -> None:
        """Queue one message. `number` is an audio chunk's own, for telling the receiver of a drop."""
        if self._overflowed:
            return
        if not self._entries and self._in_flight < self._limits.in_flight:
            self._write(message, now, binary)
            return
        if lane is Lane.SETTINGS:
            self._drop_where(lambda entry: entry.lane is Lane.SETTINGS)
        self._entries.append(Entry(lane, message, now, number, binary))
        self._queued += len(message)
        if self.size >= self._limits.queue_pause:
            self._drop_audio()
        self.check(now)

    def check(self, now: float) -> None:
        """Call from time to time: a queue also overflows by age."""
        if self._overflowed or not self._flights:
            return
        oldest = self._flights[0][1]
        if self.size > self._limits.queue_size or now - oldest > self._limits.queue_age:
            self._overflowed = True
            size, age = self.size, now - oldest
            self._entries.clear()
            self._queued = 0
            self._on_overflow(size, age)
            self.release()

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Call back once when the queue is no longer congested, or is given up."""
        if self.congested and not self._overflowed:
            self._relieved.append(call)
        else:
            call()

    def release(self) -> None:
        """Nobody needs to wait for this connection any more."""
        waiting, self._relieved = self._relieved, []
        for call in waiting:
            call()

    def _write(self, message: bytes, now: float, binary: bool) -> None:
        size = len(message)
        self._flights.append((size, now))
        self._in_flight += size
        write = self._transport.write_binary if binary else self._transport.write
        write(message, self._written)

    def _written(self) -> None:
        """The transport has got rid of the oldest message in flight."""
        self._in_flight -= self._flights.popleft()[0]
        if self._entries or self._relieved:
            self._pump()

    def _pump(self) -> None:
        # A transport with room calls `written` before `write` returns: this loop then just goes on.
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._entries and self._in_flight < self._limits.in_flight:
                entry = self._entries.popleft()
                self._queued -= len(entry.message)
                self._write(entry.message, entry.queued_at, entry.binary)
        finally:
            self._pumping = False
        if self._relieved and not self.congested:
            self.release()

    def _drop_where(self, drop: Callable[[Entry], bool]) -> None:
        kept = deque(entry for entry in self._entries if not drop(entry))
        self._queued -= sum(len(entry.message) for entry in self._entries if drop(entry))
        self._entries = kept

    def _drop_audio(self) -> None:
        """Drop the oldest audio until the queue is below the bound, and say which."""
        dropped: list[int] = []
        excess = self.size - self._limits.queue_pause
        for entry in self._entries:
            if excess < 0:
                break
            if entry.lane is Lane.AUDIO:
                dropped.append(entry.number)
                excess -= len(entry.message)
        if dropped:
            gone = set(dropped)
            self._drop_where(lambda entry: entry.lane is Lane.AUDIO and entry.number in gone)
            if self.on_gap:
                self.on_gap(dropped[0], dropped[-1])
