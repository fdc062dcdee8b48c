"""The messages that wait to be sent to one connection: bounded in bytes and age, never waited for.

While the kernel takes what is written, nothing waits and a message goes straight through. Once it does not, the rest
waits here, where audio can still be dropped and settings be replaced by newer ones. Messages are never dropped
silently: a connection that does not read them is closed, and the client gets them when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from pairing_server.relay.context import RelayContext


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
    """Carries bytes to the client. It calls `stalled` and `drained` of its send queue."""

    send_queue: SendQueue | None

    def write(self, message: bytes, binary: bool) -> None:
        """Hand over one message, text or binary."""

    def write_all(self, entries: Sequence[Entry]) -> None:
        """Hand over several at once."""

    def pending(self) -> int:
        """Bytes that were handed over and that the kernel has not taken yet."""

    def busy(self) -> None:
        """The client sends many messages: TCP may acknowledge them later."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake. Nothing more is written or received."""

    def drop(self) -> None:
        """End the connection without a closing handshake, once everything is written. Nothing more is received."""


class SendQueue:
    """The queue of one connection.

    `on_overflow` is called once, with bytes and seconds, when it has become too long or too old; `on_gap` with
    the first and last number of the audio that was dropped.
    """

    __slots__ = (
        "_closed",
        "_context",
        "_entries",
        "_in_flight",
        "_limits",
        "_on_gap",
        "_on_overflow",
        "_queued_bytes",
        "_transport",
        "_waiting_calls",
        "_writable",
        "first_unsent",
    )

    def __init__(
        self,
        transport: Transport,
        context: RelayContext,
        on_overflow: Callable[[int, float], None],
        on_gap: Callable[[int, int], None],
    ) -> None:
        transport.send_queue = self
        self._transport = transport
        self._context = context
        self._limits = context.limits
        self._on_overflow = on_overflow
        self._on_gap = on_gap
        # Whether what is sent goes straight to the transport.
        self._writable = True
        self._closed = False
        self._entries: list[Entry] = []
        self._queued_bytes = 0
        # Size of each message that the kernel has not taken whole, and since when it has waited.
        self._in_flight: list[tuple[int, float]] = []
        # Called once the queue is no longer congested.
        self._waiting_calls: list[Callable[[], None]] = []
        # Of the messages that were given up, the first number.
        self.first_unsent: int | None = None

    @property
    def size(self) -> int:
        """Bytes not yet taken by the kernel."""
        return self._queued_bytes + self._transport.pending()

    @property
    def congested(self) -> bool:
        """Whether the connection that sends to this one should be read no more for now."""
        return not (self._writable or self._closed) and self.size >= self._limits.queue_pause

    def send(
        self,
        message: bytes,
        lane: Lane = Lane.MESSAGE,
        number: int = 0,
        binary: bool = False,
    ) -> bool:
        """Send one message, or queue it; whether the queue is `congested` then.

        `number`: a relayed message's or an audio chunk's own, to report what was not sent. 0 for what has none.
        """
        if self._writable:
            self._transport.write(message, binary)
            return not self._writable and self.congested
        if self._closed:
            if self.first_unsent is None and lane is Lane.MESSAGE and number:
                self.first_unsent = number
            return False
        now = self._context.now()
        if lane is Lane.SETTINGS:
            self._context.counters.settings_replaced += self._drop_where(
                lambda entry: entry.lane is Lane.SETTINGS
            )
        self._entries.append(Entry(lane, message, now, number, binary))
        self._queued_bytes += len(message)
        if self.size >= self._limits.queue_pause:
            self._drop_audio()
        self.check_overflow(now)
        return self.congested

    def stalled(self) -> None:
        """Called by the transport: the kernel takes no more for now."""
        self._writable = False
        if not self._in_flight:
            self._in_flight.append((self._transport.pending(), self._context.now()))

    def drained(self) -> None:
        """Called by the transport: the kernel has taken all."""
        if self._closed:
            return
        self._writable = True
        self._in_flight.clear()
        while self._entries and self._writable:
            portion = self._portion()
            self._context.queue_wait.observe(self._context.now() - portion[0].queued_at)
            self._in_flight.extend((len(entry.message), entry.queued_at) for entry in portion)
            self._transport.write_all(portion)
            if self._writable:
                self._in_flight.clear()
        if self._waiting_calls and not self.congested:
            self.release()

    def _portion(self) -> list[Entry]:
        """The first of the queue, as much as the transport may hold; at least one."""
        count = size = 0
        while count < len(self._entries) and size < self._limits.in_flight:
            size += len(self._entries[count].message)
            count += 1
        portion, self._entries = self._entries[:count], self._entries[count:]
        self._queued_bytes -= size
        return portion

    def check_overflow(self, now: float) -> None:
        """Close an overfull queue. To be called from time to time, too: a queue also overflows by age."""
        if self._closed or self._writable:
            return
        size, age = self.size, now - self._oldest()
        if size > self._limits.queue_size or age > self._limits.queue_age:
            self.close()
            self._on_overflow(size, age)

    def _oldest(self) -> float:
        """Since when the oldest message has waited that the kernel has not taken."""
        flight = self._in_flight
        pending, held = self._transport.pending(), sum(size for size, _ in flight)
        while len(flight) > 1 and held - flight[0][0] >= pending:
            held -= flight.pop(0)[0]
        return flight[0][1]

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Call back once when the queue is no longer congested, or is given up."""
        if self.congested:
            self._waiting_calls.append(call)
        else:
            call()

    def release(self) -> None:
        """Call those that wait: they need not wait for this connection any more."""
        waiting, self._waiting_calls = self._waiting_calls, []
        for call in waiting:
            call()

    def close(self) -> None:
        """Give up what waits, and take nothing more."""
        self._closed, self._writable = True, False
        held = [entry.number for entry in self._entries if entry.lane is Lane.MESSAGE and entry.number]
        if held:
            self.first_unsent = held[0]
            self._context.counters.messages_given_up += len(held)
        self._entries.clear()
        self._queued_bytes = 0
        self.release()

    def _drop_where(self, drop: Callable[[Entry], bool]) -> int:
        """Drop those entries; how many."""
        kept = [entry for entry in self._entries if not drop(entry)]
        dropped = len(self._entries) - len(kept)
        self._queued_bytes -= sum(len(entry.message) for entry in self._entries if drop(entry))
        self._entries = kept
        return dropped

    def _drop_audio(self) -> None:
        """Drop the oldest audio until the queue is below the limit, and report which."""
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
