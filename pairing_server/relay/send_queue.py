"""What waits to be sent to one connection: bounded in bytes and age, never waited for.

While the kernel takes what is written nothing waits, and a message goes straight through. Once it does not,
the rest waits here, where audio can still be dropped and settings be replaced by newer ones. Messages are
never dropped silently: a connection that does not read them is closed, comes back and is told what it missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from prometheus_client import Histogram

from pairing_server.relay.connection_limits import ConnectionLimits


class Lane(Enum):
    MESSAGE = "message"
    SETTINGS = "settings"
    AUDIO = "audio"


class Entry(NamedTuple):
    lane: Lane
    message: bytes
    queued_at: float
    number: int
    binary: bool


class Transport(Protocol):
    """What carries bytes to the client. It calls its outbox's `stalled` and `drained`."""

    send_queue: SendQueue | None

    def write(self, message: bytes, binary: bool) -> None:
        """Hand over one message, text or binary."""

    def write_all(self, entries: Sequence[Entry]) -> None:
        """Hand over several at once."""

    def pending(self) -> int:
        """Bytes that were handed over and that the kernel has not taken yet."""

    def busy(self) -> None:
        """The client sends one message after the other; it may be told later that they have come."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake. Nothing more is written or received."""


class SendQueue:
    """The queue of one connection.

    `on_overflow` is called once, with bytes and seconds, when it has become too long or too old; `on_gap` with
    the first and last number of the audio that was dropped. `waited` is told how many seconds the queue has held up
    the oldest of each portion that leaves it.
    """

    __slots__ = (
        "_entries",
        "_flight",
        "_limits",
        "_now",
        "_on_gap",
        "_on_overflow",
        "_over",
        "_queued",
        "_relieved",
        "_through",
        "_transport",
        "_waited",
        "given_up",
        "replaced",
        "unsent",
    )

    def __init__(
        self,
        transport: Transport,
        limits: ConnectionLimits,
        now: Callable[[], float],
        on_overflow: Callable[[int, float], None],
        on_gap: Callable[[int, int], None],
        waited: Histogram,
    ) -> None:
        transport.send_queue = self
        self._transport = transport
        self._limits = limits
        self._now = now
        self._on_overflow = on_overflow
        self._on_gap = on_gap
        self._waited = waited
        # Whether what is sent goes straight to the transport.
        self._through = True
        self._over = False
        self._entries: list[Entry] = []
        self._queued = 0
        # Size of each message that the kernel has not taken whole, and since when it has waited.
        self._flight: list[tuple[int, float]] = []
        self._relieved: list[Callable[[], None]] = []
        # Of the messages that were given up, the first number.
        self.unsent: int | None = None
        # How many settings newer ones have replaced, and how many messages were given up: metrics read it.
        self.replaced = 0
        self.given_up = 0

    @property
    def size(self) -> int:
        """Bytes not yet taken by the kernel."""
        return self._queued + self._transport.pending()

    @property
    def congested(self) -> bool:
        """Whether those who send to this connection should be read no more for now."""
        return not (self._through or self._over) and self.size >= self._limits.queue_pause

    def send(
        self,
        message: bytes,
        lane: Lane = Lane.MESSAGE,
        number: int = 0,
        binary: bool = False,
    ) -> bool:
        """Send one message, or queue it; whether the outbox is `congested` then.

        `number`: a relayed message's or an audio chunk's own, to say what was not sent. 0 for what has none.
        """
        if self._through:
            self._transport.write(message, binary)
            return not self._through and self.congested
        if self._over:
            if self.unsent is None and lane is Lane.MESSAGE and number:
                self.unsent = number
            return False
        now = self._now()
        if lane is Lane.SETTINGS:
            self.replaced += self._drop_where(lambda entry: entry.lane is Lane.SETTINGS)
        self._entries.append(Entry(lane, message, now, number, binary))
        self._queued += len(message)
        if self.size >= self._limits.queue_pause:
            self._drop_audio()
        self.check(now)
        return self.congested

    def stalled(self) -> None:
        """The transport: the kernel takes no more for now."""
        self._through = False
        if not self._flight:
            self._flight.append((self._transport.pending(), self._now()))

    def drained(self) -> None:
        """The transport: the kernel has taken all."""
        if self._over:
            return
        self._through = True
        self._flight.clear()
        while self._entries and self._through:
            portion = self._portion()
            self._waited.observe(self._now() - portion[0].queued_at)
            self._flight.extend((len(entry.message), entry.queued_at) for entry in portion)
            self._transport.write_all(portion)
            if self._through:
                self._flight.clear()
        if self._relieved and not self.congested:
            self.release()

    def _portion(self) -> list[Entry]:
        """The first of the queue, as much as the transport may hold; at least one."""
        count = size = 0
        while count < len(self._entries) and size < self._limits.in_flight:
            size += len(self._entries[count].message)
            count += 1
        portion, self._entries = self._entries[:count], self._entries[count:]
        self._queued -= size
        return portion

    def check(self, now: float) -> None:
        """Call from time to time: a queue also overflows by age."""
        if self._over or self._through:
            return
        size, age = self.size, now - self._oldest()
        if size > self._limits.queue_size or age > self._limits.queue_age:
            self.close()
            self._on_overflow(size, age)

    def _oldest(self) -> float:
        """Since when the oldest message has waited that the kernel has not taken."""
        flight = self._flight
        pending, held = self._transport.pending(), sum(size for size, _ in flight)
        while len(flight) > 1 and held - flight[0][0] >= pending:
            held -= flight.pop(0)[0]
        return flight[0][1]

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Call back once when the queue is no longer congested, or is given up."""
        if self.congested:
            self._relieved.append(call)
        else:
            call()

    def release(self) -> None:
        """Nobody needs to wait for this connection any more."""
        waiting, self._relieved = self._relieved, []
        for call in waiting:
            call()

    def close(self) -> None:
        """Give up what waits, and take nothing more."""
        self._over, self._through = True, False
        held = [entry.number for entry in self._entries if entry.lane is Lane.MESSAGE and entry.number]
        if held:
            self.unsent = held[0]
            self.given_up += len(held)
        self._entries.clear()
        self._queued = 0
        self.release()

    def _drop_where(self, drop: Callable[[Entry], bool]) -> int:
        """How many were dropped."""
        kept = [entry for entry in self._entries if not drop(entry)]
        dropped = len(self._entries) - len(kept)
        self._queued -= sum(len(entry.message) for entry in self._entries if drop(entry))
        self._entries = kept
        return dropped

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
            self._on_gap(dropped[0], dropped[-1])
