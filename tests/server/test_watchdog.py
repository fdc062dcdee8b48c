"""The pulse of the event loop, and the watchdog that it feeds. The clock is driven, nothing waits."""

from __future__ import annotations

import heapq
import itertools
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pairing_server.metrics import counts_of, histogram
from pairing_server.server.systemd import Notifier
from pairing_server.server.watchdog import DEAD, Pulse


class Loop:
    """A clock that moves when it is told to, and runs what is due then."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._numbers), call))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = end

    def block(self, seconds: float) -> None:
        """Nothing runs for so long; then what is overdue does."""
        self.now += seconds
        overdue = [call for due, _, call in sorted(self._due) if due <= self.now]
        self._due = [entry for entry in self._due if entry[0] > self.now]
        heapq.heapify(self._due)
        for call in overdue:
            call()


class Life:
    """A pulse with a watchdog of 30 s, and what the manager was told."""

    def __init__(self, manager: socket.socket) -> None:
        self.loop = Loop()
        self.lag = histogram("lag", "Seconds.", (0.1, 1, 10))
        self.status = "idle"
        self.notifier = Notifier(manager.getsockname(), watchdog=30)
        self.pulse = Pulse(self.loop.time, self.loop.later, self.notifier, lambda: self.status, self.lag)
        self._manager = manager

    def told(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._manager.recv(1000).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        made = Life(manager)
        made.pulse.start()
        yield made
        made.notifier.close()


def test_a_running_loop_feeds_the_watchdog_three_times_in_its_interval(life: Life) -> None:
    life.loop.run(30)
    assert life.told().count("WATCHDOG=1") >= 3


def test_a_blocked_loop_feeds_nobody(life: Life) -> None:
    life.loop.run(15)
    life.told()
    life.loop.block(40)
    assert life.told() == [], "late by 40 s is not alive"
    life.loop.run(1)
    assert "WATCHDOG=1" in life.told(), "it is again"


def test_a_loop_that_is_always_late_is_never_called_alive(life: Life) -> None:
    life.loop.run(15)
    life.told()
    for _ in range(10):
        life.loop.block(DEAD + 1)
    assert life.told() == []


def test_a_blocked_loop_is_logged_and_measured(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pairing_server.server.watchdog"):
        life.loop.run(5)
        assert caplog.messages == []
        life.loop.block(7.5)
    assert caplog.messages == ["the event loop was blocked for 7.0 s"]
    assert counts_of(life.lag) == [10, 10, 11, 11]


def test_the_status_is_told_when_it_has_changed_and_not_in_every_beat(life: Life) -> None:
    life.loop.run(60)
    assert [text for text in life.told() if "STATUS" in text] == ["STATUS=idle"]
    told = []
    for n in range(100):
        life.status = f"{n} connections"
        life.loop.run(0.5)
        told += [text for text in life.told() if "STATUS" in text]
    assert len(told) == 10


def test_a_stopped_pulse_beats_no_more(life: Life) -> None:
    life.pulse.stop()
    life.loop.run(60)
    assert life.told() == []


def test_without_a_watchdog_only_the_status_is_told(tmp_path: Path, life: Life) -> None:
    life.pulse.stop()
    life.notifier.watchdog = None
    life.pulse.start()
    life.loop.run(60)
    assert life.told() == ["STATUS=idle"]
