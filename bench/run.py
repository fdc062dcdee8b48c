"""One run: what is running, how a job is given to the load, and the records that come of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.loads import JobFailed, Load, Values
from bench.ours import Site
from bench.processes import NotStarted, Processes
from bench.servers import Server
from bench.wire import Pair, Seat


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. Times in seconds; `widely`: every server in every cell, not only the main ones.

    Nothing new is begun `within` seconds after the start.
    """

    within: float
    rounds: int
    warm_up: float
    seconds: float
    idle: tuple[int, int]
    storm: int
    connections: tuple[int, ...]
    live_codes: tuple[int, ...]
    widely: bool


FULL = Scale(
    within=540,
    rounds=2,
    warm_up=0.5,
    seconds=1.5,
    idle=(200, 2000),
    storm=2000,
    connections=(100, 1_000, 10_000),
    live_codes=(10, 100_000, 900_000),
    widely=True,
)
QUICK = Scale(
    within=50,
    rounds=1,
    warm_up=0.1,
    seconds=0.3,
    idle=(100, 600),
    storm=100,
    connections=(100, 300),
    live_codes=(10, 10_000),
    widely=False,
)


@dataclass(frozen=True, slots=True)
class Record:
    """What one cell gave for one server; `failed` says why it gave nothing."""

    cell: str
    server: str
    title: str
    values: Values
    failed: str = ""


@dataclass(slots=True)
class Run:
    """`servers`: those that run, by key. `skipped`: what could not be measured at all, and why.

    `folder`: for files of this run. `deadline`: monotonic seconds after which nothing new is begun.
    """

    scale: Scale
    folder: Path
    site: Site
    load: Load
    say: Callable[[str], None]
    deadline: float
    servers: dict[str, Server] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def begin(self, title: str, start: Callable[[], Server]) -> None:
        """Start a server, or note that it cannot be had."""
        try:
            server = start()
        except NotStarted as error:
            self.skip(title, str(error))
        else:
            self.servers[server.key] = server

    def await_servers(self, processes: Processes) -> None:
        """Return when all that were started listen; those that do not are noted and left out."""
        for server in list(self.servers.values()):
            try:
                processes.await_port(server.key, server.process, server.port)
            except NotStarted as error:
                del self.servers[server.key]
                self.skip(server.title, str(error))

    def skip(self, what: str, why: str) -> None:
        self.skipped.append(f"{what}: {why}")
        self.say(f"SKIPPED {what}: {why}")

    def among(self, *keys: str) -> list[Server]:
        """Those of the servers that run; all that run if the run is a wide one."""
        return [server for server in self.servers.values() if self.scale.widely or server.key in keys]

    def record(self, cell: str, server: Server, measure: Callable[[], Values], shown: str) -> Values | None:
        """Measure and keep what comes of it; `shown` is the format of the line that tells of it."""
        if time.monotonic() > self.deadline:
            self.skip(f"{cell} · {server.title}", "the time was over")
            return None
        try:
            values = measure()
        except JobFailed as error:
            self.records.append(Record(cell, server.key, server.title, {}, str(error)))
            self.say(f"{cell} · {server.title}: FAILED: {error}")
            return None
        self.keep(cell, server.key, server.title, values)
        self.say(f"{cell} · {server.title}: {shown.format(**values)}")
        return values

    def keep(self, cell: str, server: str, title: str, values: Values) -> None:
        """Keep the record; of several rounds the one with the least CPU, which was disturbed least."""
        for place, known in enumerate(self.records):
            if (known.cell, known.server) == (cell, server):
                if known.failed or values.get("cpu_us", 0) < known.values.get("cpu_us", 0):
                    self.records[place] = Record(cell, server, title, values)
                return
        self.records.append(Record(cell, server, title, values))


def as_json(seats: Sequence[Seat]) -> list[dict[str, Any]]:
    return [seat.to_json() for seat in seats]


def pairs_as_json(pairs: Sequence[Pair]) -> list[list[dict[str, Any]]]:
    return [as_json(pair) for pair in pairs]


def both(pairs: Sequence[Pair]) -> list[Seat]:
    """The seats of the pairs, one after the other."""
    return [seat for pair in pairs for seat in pair]


def nothing_of_the_environment() -> None:
    """What this machine sets for a server of its own is not for a measured one."""
    for name in [name for name in os.environ if name.startswith("PAIRING_")]:
        del os.environ[name]
