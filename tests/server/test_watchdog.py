"""The watchdog, fed by the event loop. The test moves the clock, nothing waits."""

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
from pairing_server.server.watchdog import DEAD_SECONDS, Watchdog


class Loop:
    """A clock that the test moves; it runs what is due then."""

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


class Watched:
    """A watchdog of 30 s, and the notifications that the manager got."""

    def __init__(self, manager: socket.socket) -> None:
        self.loop = Loop()
        self.lag = histogram("lag", "Seconds.", (0.1, 1, 10))
        self.status = "idle"
        self.notifier = Notifier(manager.getsockname(), watchdog=30)
        self.watchdog = Watchdog(
            self.loop.time, self.loop.later, self.notifier, lambda: self.status, self.lag
        )
        self._manager = manager

    def notifications(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._manager.recv(1000).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        made = Watched(manager)
        made.watchdog.start()
        yield made
        made.notifier.close()


def test_a_running_loop_feeds_the_watchdog_three_times_in_its_interval(watched: Watched) -> None:
    watched.loop.run(30)
    assert watched.notifications().count("WATCHDOG=1") >= 3


def test_a_blocked_loop_does_not_feed_the_watchdog(watched: Watched) -> None:
    watched.loop.run(15)
    watched.notifications()
    watched.loop.block(40)
    assert watched.notifications() == [], "late by 40 s is not alive"
    watched.loop.run(1)
    assert "WATCHDOG=1" in watched.notifications(), "it is again"


def test_a_loop_that_is_always_late_does_not_feed_the_watchdog(watched: Watched) -> None:
    watched.loop.run(15)
    watched.notifications()
    for _ in range(10):
        watched.loop.block(DEAD_SECONDS + 1)
    assert watched.notifications() == []


def test_a_blocked_loop_is_logged_and_measured(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pairing_server.server.watchdog"):
        watched.loop.run(5)
        assert caplog.messages == []
        watched.loop.block(7.5)
    [record] = caplog.records
    assert (record.message, record.__dict__["seconds"]) == ("event loop blocked", 7.0)
    assert counts_of(watched.lag) == [10, 10, 11, 11]


def test_the_status_is_sent_when_it_has_changed_and_not_in_every_tick(watched: Watched) -> None:
    watched.loop.run(60)
    assert [text for text in watched.notifications() if "STATUS" in text] == ["STATUS=idle"]
    sent = []
    for n in range(100):
        watched.status = f"{n} connections"
        watched.loop.run(0.5)
        sent += [text for text in watched.notifications() if "STATUS" in text]
    assert len(sent) == 10


def test_a_stopped_watchdog_sends_nothing(watched: Watched) -> None:
    watched.watchdog.stop()
    watched.loop.run(60)
    assert watched.notifications() == []


def test_a_manager_without_a_watchdog_gets_the_status_only(tmp_path: Path, watched: Watched) -> None:
    watched.watchdog.stop()
    watched.notifier.watchdog = None
    watched.watchdog.start()
    watched.loop.run(60)
    assert watched.notifications() == ["STATUS=idle"]
