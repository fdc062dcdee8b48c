"""The cells of the table that are about sockets: relay, a flood, memory, connects, and how relaying grows."""

from __future__ import annotations

import contextlib

from bench.loads import JobFailed, Load, Values
from bench.ours import OURS
from bench.run import Run, as_json, both, pairs_as_json
from bench.servers import Server

# The name of a cell, its window, the bytes of a frame, and how many pairs.
RELAY = (
    ("relay, window 1, 220 B", 1, 220, 50),
    ("relay, window 16, 220 B", 16, 220, 20),
    ("relay, window 4, 8 KiB", 4, 8192, 20),
)
QUIET, FLOODED = "50 quiet pairs", "50 quiet pairs beside a flooding one"
IDLE = "memory of an idle joined connection"
CONNECTS = "full connects"
STORM = "storm of connects"
GROWTH = "relay, window 1, 220 B, among {:,} connections"

# The servers that the figures to reach are about.
MAIN = (OURS, "ws", "tornado")

_RELAYED = "{cpu_us:.1f} µs CPU, {rate:,.0f}/s, p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms"


def relay_once(
    run: Run, server: Server, window: int, size: int, pairs: int, idle: int = 0, pace: float = 0.0
) -> Values:
    """One relay job. `idle`: connections that are joined and silent. Raises JobFailed."""
    plan = {
        "server_pid": server.pid,
        "window": window,
        "pace": pace,
        "warm_up": run.scale.warm_up,
        "seconds": run.scale.seconds * (4 if pace else 1),
    }
    silent = as_json(both(server.pairs(idle // 2, size)))
    return run.load.do("relay", plan=plan, pairs=pairs_as_json(server.pairs(pairs, size)), idle=silent)


def warm_up(run: Run) -> None:
    """Let every server relay for a moment: some of them compile what they do often."""
    for server in run.servers.values():
        with contextlib.suppress(JobFailed):
            relay_once(run, server, 16, 220, 20)


def relay(run: Run) -> None:
    """Each round all servers, cell by cell, so that what disturbs one disturbs its neighbours too."""
    warm_up(run)
    for _ in range(run.scale.rounds):
        for name, window, size, pairs in RELAY:
            for server in run.servers.values():

                def measure(
                    server: Server = server, cell: tuple[int, int, int] = (window, size, pairs)
                ) -> Values:
                    return relay_once(run, server, *cell)

                run.record(name, server, measure, _RELAYED)


def flood(run: Run) -> None:
    """Quiet pairs send ten messages a second each; then one pair beside them keeps 256 in flight."""
    for server in run.among(*MAIN):

        def quiet(server: Server = server) -> Values:
            return relay_once(run, server, 1, 220, 50, pace=0.1)

        def flooded(server: Server = server) -> Values:
            plan = {"server_pid": server.pid, "window": 256, "warm_up": 0.1, "seconds": 60.0}
            # The flood gives way on the load's core, or it would be the load that is slow.
            with Load(yielding=True) as other:
                other.begin("relay", plan=plan, pairs=pairs_as_json(server.pairs(1, 220)), idle=[])
                return relay_once(run, server, 1, 220, 50, pace=0.1)

        shown = "p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms"
        run.record(QUIET, server, quiet, shown)
        run.record(FLOODED, server, flooded, shown)


def idle(run: Run) -> None:
    """For servers that have just started: what others have used and freed would be used again."""
    for server in run.among(*MAIN):

        def measure(server: Server = server) -> Values:
            warming, counted = run.scale.idle
            first = as_json(both(server.pairs(warming // 2, 220)))
            more = as_json(both(server.pairs(counted // 2, 220)))
            return run.load.do("idle", first=first, more=more, server_pid=server.pid)

        run.record(IDLE, server, measure, "{bytes:,.0f} bytes")


def connects(run: Run) -> None:
    """Ours: token, upgrade, identify, join. The others have only the upgrade and a first message."""
    for server in run.among(*MAIN):

        def measure(server: Server = server) -> Values:
            seats = as_json(both(server.pairs(100, 220)))
            times = {"at_once": 16, "seconds": run.scale.seconds * 3, "server_pid": server.pid}
            return run.load.do("connects", seats=seats, **times)

        run.record(CONNECTS, server, measure, "{rate:,.0f}/s, {cpu_us:,.0f} µs CPU each")


def storm(run: Run) -> None:
    """All at the same moment, as after a restart, with the tokens that they have."""
    for key in MAIN:
        if key in run.servers:
            server = run.servers[key]

            def measure(server: Server = server) -> Values:
                return run.load.do("storm", seats=as_json(both(server.pairs(run.scale.storm // 2, 220))))

            shown = "{connects} in {seconds:.1f} s, {handshakes_failed} failed handshakes, {retries} retries"
            run.record(STORM, server, measure, shown)


def growth(run: Run, open_files: int) -> None:
    """How relaying grows with the connections of the server, nearly all of them silent."""
    for count in run.scale.connections:
        if count + 200 > open_files:
            run.skip(GROWTH.format(count), f"this system lets a process open {open_files:,} files only")
            continue
        for key in MAIN[:2]:
            if key in run.servers:
                server = run.servers[key]

                def measure(server: Server = server, count: int = count) -> Values:
                    return relay_once(run, server, 1, 220, 50, idle=count - 100)

                run.record(GROWTH.format(count), server, measure, _RELAYED)
