"""Messages from one connection of each pair to the other, with a window or at a steady pace, and their times."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from harness.load_client import (
    Connection,
    Endpoint,
    Pair,
    both,
    close_all,
    connect_all,
    percentile,
    sent_times,
)
from harness.machine import cpu_seconds

# The keep-alive messages of the peers, with the answer that each expects.
_KEEP_ALIVES = {b"PING\r\n": b"PONG\r\n", b"2": b"3"}


@dataclass(frozen=True, slots=True)
class Plan:
    """`window`: messages of each sender in flight. `pace`: instead of a window, seconds between two messages."""

    server_pid: int
    window: int
    pace: float
    warm_up: float
    seconds: float


class Meter:
    """Times the messages that arrive while it is on."""

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


class Stream:
    """The messages from one connection of a pair to the other."""

    def __init__(self, sender: Connection, receiver: Connection, meter: Meter, pace: float) -> None:
        self._sender = sender
        self._receiver = receiver
        self._meter = meter
        self._pace = pace
        self._before = sender.endpoint.before.encode()
        self._after = sender.endpoint.after.encode()
        self.ended = False
        receiver.receive = self._received
        sender.receive = partial(_keep_alive, sender)

    def send(self) -> None:
        self._sender.send(b"%b%016x%b" % (self._before, time.perf_counter_ns(), self._after))

    def keep_pace(self) -> None:
        """Send now, and then once in each interval."""
        if not self.ended:
            self.send()
            asyncio.get_running_loop().call_later(self._pace, self.keep_pace)

    def _received(self, data: bytes) -> None:
        times = sent_times(data)
        if not times:
            _keep_alive(self._receiver, data)
        for sent in times:
            if self._meter.on:
                self._meter.times.append(time.perf_counter_ns() - sent)
            if not self._pace and not self.ended:
                self.send()


def _keep_alive(connection: Connection, data: bytes) -> None:
    if answer := _KEEP_ALIVES.get(data):
        connection.send(answer)


async def relay(
    pairs: Sequence[Pair], idle: Sequence[Endpoint], plan: Plan, on_start: Callable[[], None]
) -> dict[str, float]:
    """Relay between the pairs as planned, beside the idle connections. `on_start`: called when measuring starts."""
    waiting = await connect_all(idle)
    connections = await connect_all(both(pairs))
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
    on_start()
    meter.start()
    await asyncio.sleep(plan.seconds)
    measured = meter.stop()
    for stream in streams:
        stream.ended = True
    close_all([*connections, *waiting])
    return measured
