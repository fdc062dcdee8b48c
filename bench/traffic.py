"""Messages from one seat of each pair to the other: so many in flight, or at a steady pace, and timed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.connections import Connection, close_all, take_all
from bench.machine import cpu_seconds
from bench.wire import MARK, TIME_DIGITS, Seat

_MARK_SIZE = len(MARK)
# What servers ask now and then, and the answer that keeps the connection.
_ANSWERS = {b"PING\r\n": b"PONG\r\n", b"2": b"3"}


@dataclass(frozen=True, slots=True)
class Plan:
    """`window`: messages of each sender in flight. `pace`: seconds between two of them instead, 0 for none."""

    server_pid: int
    window: int = 1
    pace: float = 0.0
    warm_up: float = 0.5
    seconds: float = 2.0


class Meter:
    """What has arrived while it was on."""

    def __init__(self, server_pid: int) -> None:
        self.times: list[int] = []
        self.on = False
        self._server_pid = server_pid
        self._began = self._server_began = self._load_began = 0.0

    def start(self) -> None:
        self._server_began = cpu_seconds(self._server_pid)
        self._load_began = time.process_time()
        self._began = time.perf_counter()
        self.on = True

    def stop(self) -> dict[str, float]:
        """CPU in µs a message, messages a second, times in ms, and how busy (0 to 1) both sides were."""
        self.on = False
        seconds = time.perf_counter() - self._began
        used = cpu_seconds(self._server_pid) - self._server_began
        times = sorted(self.times)
        count = len(times)
        return {
            "messages": count,
            "rate": count / seconds,
            "cpu_us": used * 1e6 / count if count else float("nan"),
            "p50_ms": percentile(times, 0.50) / 1e6,
            "p99_ms": percentile(times, 0.99) / 1e6,
            "server_busy": used / seconds,
            "load_busy": (time.process_time() - self._load_began) / seconds,
        }


def percentile(ordered: Sequence[int], share: float) -> float:
    """The smallest value that at least that share of the values do not exceed; not a number for none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


class Stream:
    """What goes from one connection of a pair to the other."""

    def __init__(self, sender: Connection, receiver: Connection, meter: Meter, pace: float) -> None:
        self._sender = sender
        self._receiver = receiver
        self._meter = meter
        self._pace = pace
        self._before = sender.seat.before.encode()
        self._after = sender.seat.after.encode()
        self.ended = False
        receiver.receive = self._received
        sender.receive = self._answered

    def send(self) -> None:
        self._sender.send(b"%b%016x%b" % (self._before, time.perf_counter_ns(), self._after))

    def keep_pace(self) -> None:
        """Send, and again after each pause."""
        if not self.ended:
            self.send()
            asyncio.get_running_loop().call_later(self._pace, self.keep_pace)

    def _received(self, data: bytes) -> None:
        at = data.find(MARK)
        if at < 0:
            _answer(self._receiver, data)
        # A server may put several messages into one frame.
        while at >= 0:
            at += _MARK_SIZE
            if self._meter.on:
                sent = int(data[at : at + TIME_DIGITS], 16)
                self._meter.times.append(time.perf_counter_ns() - sent)
            if not self._pace and not self.ended:
                self.send()
            at = data.find(MARK, at)

    def _answered(self, data: bytes) -> None:
        _answer(self._sender, data)


def _answer(connection: Connection, data: bytes) -> None:
    if answer := _ANSWERS.get(data):
        connection.send(answer)


async def relay(
    pairs: Sequence[tuple[Seat, Seat]], plan: Plan, idle: Sequence[Seat], running: Callable[[], None]
) -> dict[str, float]:
    """Let the pairs talk as planned beside the idle seats; what the meter says. `running`: called when it starts."""
    waiting = await take_all(idle)
    connections = await take_all([seat for pair in pairs for seat in pair])
    meter = Meter(plan.server_pid)
    streams = [
        Stream(sender, receiver, meter, plan.pace)
        for sender, receiver in zip(connections[::2], connections[1::2], strict=True)
    ]
    loop = asyncio.get_running_loop()
    for stream in streams:
        if plan.pace:
            loop.call_later(random.uniform(0, plan.pace), stream.keep_pace)
        for _ in range(0 if plan.pace else plan.window):
            stream.send()
    await asyncio.sleep(plan.warm_up)
    running()
    meter.start()
    await asyncio.sleep(plan.seconds)
    measured = meter.stop()
    for stream in streams:
        stream.ended = True
    close_all([*connections, *waiting])
    return measured
