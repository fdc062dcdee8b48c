"""What waits for one connection: bounded in bytes and age, audio first to go, messages never silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pairing_server.config import Configuration
from pairing_server.metrics import counts_of, histogram
from pairing_server.relay.context import RelayContext
from pairing_server.relay.send_queue import Entry, Lane, SendQueue
from tests.relay.wire import Wire

LIMITS = replace(
    Configuration().connection_limits, in_flight=100, queue_pause=400, queue_size=1000, queue_age=5
)


class Portions(Wire):
    """A wire that knows how many messages it was given at once, of how many bytes.

    `room`: after so many more messages the kernel takes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.portions: list[tuple[int, int]] = []
        self.room: int | None = None

    def write(self, message: bytes, binary: bool) -> None:
        if self.room is not None:
            self.stalled = self.room <= 0
            self.room -= 1
        super().write(message, binary)

    def write_all(self, entries: Sequence[Entry]) -> None:
        self.portions.append((len(entries), sum(len(entry.message) for entry in entries)))
        super().write_all(entries)


class Queue:
    """A send queue on a wire that does not read, with what it reported."""

    def __init__(self) -> None:
        self.wire = Portions()
        self.wire.stalled = True
        self.overflows: list[tuple[int, float]] = []
        self.gaps: list[tuple[int, int]] = []
        self.now = 0.0
        waited = histogram("waited", "Seconds.", (1, 2, 4))
        self.context = RelayContext(
            LIMITS, lambda: self.now, lambda seconds, call: None, lambda event: None, queue_wait=waited
        )
        self.send_queue = SendQueue(
            self.wire,
            self.context,
            lambda size, age: self.overflows.append((size, age)),
            lambda first, last: self.gaps.append((first, last)),
        )

    def send(
        self, letter: str, size: int = 100, lane: Lane = Lane.MESSAGE, now: float = 0, number: int = 0
    ) -> None:
        self.now = now
        self.send_queue.send(letter.encode() * size, lane, number)

    @property
    def carried(self) -> str:
        """The first letter of each message the wire has been given."""
        return "".join(message[:1].decode() for message in self.wire.carried)


def test_a_reader_that_keeps_up_is_written_to_at_once() -> None:
    queue = Queue()
    queue.wire.stalled = False
    for letter in "abc":
        queue.send(letter)
    assert queue.carried == "abc"
    assert counts_of(queue.context.queue_wait) == [0, 0, 0, 0], "none has waited"


def test_how_long_the_oldest_of_a_portion_has_waited_is_measured() -> None:
    queue = Queue()
    for letter, now in (("a", 0), ("b", 1), ("c", 2), ("d", 3)):
        queue.send(letter, now=now)
    queue.now = 4
    queue.wire.read()  # "a" went straight to the wire; the rest has waited, "b" the longest
    assert queue.carried == "abcd"
    assert len(queue.wire.portions) == 3
    assert counts_of(queue.context.queue_wait) == [1, 2, 3, 3], "1, 2 and 3 seconds"
    assert queue.send_queue.size == 0


def test_no_more_than_the_transport_may_hold_is_handed_over_and_the_rest_follows_in_order() -> None:
    queue = Queue()
    for letter in "abc":
        queue.send(letter)
    assert queue.carried == "a"
    assert queue.send_queue.size == 300
    queue.wire.read(1)
    assert queue.carried == "ab"
    queue.wire.read()
    assert queue.carried == "abc"
    assert queue.send_queue.size == 0


def test_a_queue_is_congested_from_the_bound_on_and_calls_back_once_it_is_not() -> None:
    queue = Queue()
    called: list[str] = []
    for letter in "abc":
        queue.send(letter)
    assert not queue.send_queue.congested
    queue.send_queue.when_relieved(lambda: called.append("at once"))
    assert called == ["at once"]
    queue.send("d")
    assert queue.send_queue.congested
    queue.send_queue.when_relieved(lambda: called.append("later"))
    assert called == ["at once"]
    queue.wire.read(1)
    assert called == ["at once", "later"]
    queue.wire.read()
    assert called == ["at once", "later"]


def test_release_calls_those_that_wait() -> None:
    queue = Queue()
    called: list[int] = []
    for letter in "abcd":
        queue.send(letter)
    queue.send_queue.when_relieved(lambda: called.append(1))
    queue.send_queue.release()
    assert called == [1]


def test_past_the_size_the_consumer_is_given_up_once_and_gets_nothing_more() -> None:
    queue = Queue()
    for letter in "abcdefghij":
        queue.send(letter)
    assert queue.overflows == []
    queue.send("k", now=2)
    assert queue.overflows == [(1100, 2)]
    queue.send("l")
    queue.send_queue.check_overflow(60)
    assert len(queue.overflows) == 1
    queue.wire.read()
    assert queue.carried == "a"


def test_past_the_age_the_consumer_is_given_up_however_little_waits() -> None:
    queue = Queue()
    queue.send("a", size=1, now=10)
    queue.send_queue.check_overflow(15)
    assert queue.overflows == []
    queue.send_queue.check_overflow(15.1)
    assert [size for size, _ in queue.overflows] == [1]


def test_a_slow_reader_that_goes_on_reading_is_not_too_old() -> None:
    queue = Queue()
    for second in range(20):
        queue.send("m", now=second)
        queue.wire.read(1)
        queue.send_queue.check_overflow(second + 1)
    assert queue.overflows == []


def test_overflow_calls_those_that_wait() -> None:
    queue = Queue()
    called: list[int] = []
    for letter in "abcd":
        queue.send(letter)
    queue.send_queue.when_relieved(lambda: called.append(1))
    queue.send_queue.check_overflow(6)
    assert called == [1]
    queue.send_queue.when_relieved(lambda: called.append(2))
    assert called == [1, 2]


def test_the_oldest_audio_is_dropped_first_and_reported_and_messages_stay() -> None:
    queue = Queue()
    queue.send("m")
    queue.send("1", lane=Lane.AUDIO, number=1)
    queue.send("n")
    queue.send("2", lane=Lane.AUDIO, number=2)
    assert queue.gaps == [(1, 1)]
    queue.send("3", lane=Lane.AUDIO, number=3)
    assert queue.gaps == [(1, 1), (2, 2)]
    queue.wire.read()
    assert queue.carried == "mn3"


def test_audio_larger_than_the_bound_is_dropped_without_touching_what_is_under_way() -> None:
    queue = Queue()
    queue.send("a")
    queue.send("1", size=500, lane=Lane.AUDIO, number=1)
    assert queue.gaps == [(1, 1)]
    assert queue.send_queue.size == 100
    assert queue.overflows == []


def test_only_the_newest_settings_wait_behind_earlier_messages() -> None:
    queue = Queue()
    queue.send("a")
    queue.send("s", lane=Lane.SETTINGS)
    queue.send("b")
    queue.send("t", lane=Lane.SETTINGS)
    assert queue.send_queue.size == 300
    queue.wire.read()
    assert queue.carried == "abt"


def test_a_storm_of_settings_never_makes_a_slow_consumer() -> None:
    queue = Queue()
    queue.send("a")
    for _ in range(1000):
        queue.send("s", lane=Lane.SETTINGS)
    assert queue.overflows == []
    assert queue.send_queue.size == 200


def test_thousands_of_small_messages_leave_at_once_when_the_client_reads_again() -> None:
    queue = Queue()
    queue.send("a")
    for _ in range(900):
        queue.send("b", size=1)
    queue.wire.stalled = False
    queue.wire.read()
    assert queue.carried == "a" + "b" * 900
    assert queue.send_queue.size == 0


def test_what_waited_is_handed_over_in_portions_and_the_next_when_the_kernel_has_taken_one() -> None:
    queue = Queue()
    queue.send("a")
    for letter in "bcdefghij":
        queue.send(letter, size=30)
    queue.wire.read(1)
    # A portion ends with the message that fills it.
    assert queue.wire.portions == [(4, 120)]
    queue.wire.read(3)
    assert queue.wire.portions == [(4, 120)]
    queue.wire.stalled = False
    queue.wire.read()
    assert queue.wire.portions == [(4, 120), (4, 120), (1, 30)]
    assert queue.carried == "abcdefghij"
    assert queue.send_queue.size == 0


def test_a_batch_of_which_the_kernel_takes_the_first_part_is_as_old_as_the_rest() -> None:
    queue = Queue()
    queue.send("a")
    for place, letter in enumerate("bcdefgh", 1):
        queue.send(letter, size=25, now=place / 2)
    # Of the four that are handed over, it takes two: the oldest that is left waits since 1.5.
    queue.wire.room = 2
    queue.now = 4
    queue.wire.read(1)
    assert queue.carried == "abcde"
    assert queue.send_queue.size == 5 * 25
    queue.send_queue.check_overflow(6.5)
    assert queue.overflows == []
    queue.send_queue.check_overflow(6.6)
    assert [size for size, _ in queue.overflows] == [5 * 25]


def test_a_sender_that_fills_the_queue_to_the_bound_does_not_make_a_slow_reader_too_old() -> None:
    queue = Queue()
    second = 0
    for second in range(60):
        while not queue.send_queue.congested:
            queue.send("m", size=50, now=second)
        queue.wire.read(2)
        queue.send_queue.check_overflow(second + 1)
    assert queue.overflows == []
    assert len(queue.wire.carried) > 2 * second


def test_messages_that_come_while_a_portion_is_under_way_keep_their_order() -> None:
    queue = Queue()
    for letter in "abcdef":
        queue.send(letter, size=60)
    queue.wire.read(1)
    queue.send("g", size=60)
    queue.wire.stalled = False
    queue.wire.read()
    queue.send("h")
    assert queue.carried == "abcdefgh"


def test_nothing_is_sent_past_settings_and_audio_that_wait() -> None:
    queue = Queue()
    queue.send("a")
    queue.send("1", size=10, lane=Lane.AUDIO, number=1)
    queue.send("s", size=10, lane=Lane.SETTINGS)
    queue.send("b", size=10)
    queue.send("2", size=10, lane=Lane.AUDIO, number=2)
    queue.wire.read()
    assert queue.carried == "a1sb2"
    assert queue.gaps == []
