"""The benchmarks of connections: relay, a flood, memory, connects, a storm of them, and relaying among many."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import NamedTuple

from bench import message_load
from bench.load import JobFailed, Load, Values
from bench.run import Run, Scale
from bench.servers import OURS, Server
from harness.load_client import both


class Relay(NamedTuple):
    """`window`: messages of each pair in flight. `pace`: instead, seconds between two messages. `idle`: connections beside."""

    name: str
    window: int
    size_bytes: int
    pairs: int
    idle: int = 0
    pace: float = 0.0


RELAY = (
    Relay("relay, window 1, 220 B", 1, 220, 50),
    Relay("relay, window 16, 220 B", 16, 220, 20),
    Relay("relay, window 4, 8 KiB", 4, 8192, 20),
)
QUIET = Relay("50 quiet pairs", 1, 220, 50, pace=0.1)
FLOODED = "50 quiet pairs beside a flooding one"
IDLE = "memory of an idle joined connection"
CONNECTS = "full connects"
STORM = "storm of connects"
GROWTH = "relay, window 1, 220 B, among {:,} connections"

# The servers of the figures to reach.
MAIN = (OURS, "ws", "tornado")

RELAYED = "{cpu_us:.1f} µs CPU, {rate:,.0f}/s, p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms"


def _servers(run: Run) -> list[Server]:
    """All of them, or the main ones."""
    return [server for server in run.servers.values() if run.scale.all_servers or server.key in MAIN]


def relay_once(load: Load, scale: Scale, server: Server, kind: Relay) -> Values:
    """One relay job on new pairs. Raises JobFailed."""
    seconds = scale.seconds * (4 if kind.pace else 1)
    plan = message_load.Plan(server.pid, kind.window, kind.pace, scale.warm_up, seconds)
    pairs, idle = server.pairs(kind.pairs, kind.size_bytes), server.pairs(kind.idle // 2, kind.size_bytes)
    return load.do("relay", pairs=pairs, idle=both(idle), plan=plan)


def relay(run: Run) -> None:
    """In each round all servers, benchmark by benchmark: a disturbance then hits neighbours, too."""
    for server in run.servers.values():
        # Some compile what they do often.
        with contextlib.suppress(JobFailed):
            relay_once(run.load, run.scale, server, RELAY[1])
    for _ in range(run.scale.rounds):
        for kind in RELAY:
            for server in run.servers.values():
                run.record(kind.name, server, partial(relay_once, run.load, run.scale, server, kind), RELAYED)


def flood(run: Run) -> None:
    """Quiet pairs send ten messages a second each; then one pair beside them keeps 256 in flight."""

    def flooded(server: Server) -> Values:
        plan = message_load.Plan(server.pid, window=256, pace=0.0, warm_up=0.1, seconds=60.0)
        # The flood yields on the load's core, or the load would be what is slow.
        with Load(yielding=True) as other:
            other.begin("relay", pairs=server.pairs(1, 220), idle=[], plan=plan)
            return relay_once(run.load, run.scale, server, QUIET)

    for server in _servers(run):
        shown = "p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms"
        run.record(QUIET.name, server, partial(relay_once, run.load, run.scale, server, QUIET), shown)
        run.record(FLOODED, server, partial(flooded, server), shown)


def idle(run: Run) -> None:
    """For servers that have just started: memory that other benchmarks have freed would be used again."""
    warming, counted = run.scale.idle

    def measure(server: Server) -> Values:
        first, more = (both(server.pairs(count // 2, 220)) for count in (warming, counted))
        return run.load.do("idle", first=first, more=more, server_pid=server.pid)

    for server in _servers(run):
        run.record(IDLE, server, partial(measure, server), "{bytes:,.0f} bytes")


def connects(run: Run) -> None:
    """Ours: token, upgrade, identify, join. The others have only the upgrade and a first message."""

    def measure(server: Server) -> Values:
        return run.load.do(
            "connects",
            endpoints=both(server.pairs(100, 220)),
            at_once=16,
            seconds=run.scale.seconds * 3,
            server_pid=server.pid,
        )

    for server in _servers(run):
        run.record(CONNECTS, server, partial(measure, server), "{rate:,.0f}/s, {cpu_us:,.0f} µs CPU each")


def storm(run: Run) -> None:
    """All at the same moment, as after a restart, with the tokens that they have."""

    def measure(server: Server) -> Values:
        return run.load.do("storm", endpoints=both(server.pairs(run.scale.storm // 2, 220)))

    for server in (run.servers[key] for key in MAIN if key in run.servers):
        shown = "{connects} in {seconds:.1f} s, {handshakes_failed} failed handshakes, {retries} retries"
        run.record(STORM, server, partial(measure, server), shown)


def growth(run: Run, open_files: int) -> None:
    """How relaying slows down with the connections of the server, nearly all of them silent."""
    for count in run.scale.connections:
        name = GROWTH.format(count)
        if count + 200 > open_files:
            run.skip(name, f"this system lets a process open {open_files:,} files only")
            continue
        kind = RELAY[0]._replace(name=name, idle=count - 100)
        for server in (run.servers[key] for key in MAIN[:2] if key in run.servers):
            run.record(name, server, partial(relay_once, run.load, run.scale, server, kind), RELAYED)
