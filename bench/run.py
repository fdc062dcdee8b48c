"""One run: its scale, the servers, the load, and the records of what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import JobFailed, Load, Values
from bench.servers import Server
from harness.pairing_database import PairingDatabase
from harness.processes import NotStarted, Processes


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. Times in seconds; `all_servers`: each benchmark of every server, not only of the main ones.

    No benchmark is begun `deadline` seconds after the start.
    """

    deadline: float
    rounds: int
    warm_up: float
    seconds: float
    idle: tuple[int, int]
    storm: int
    connections: tuple[int, ...]
    live_codes: tuple[int, ...]
    all_servers: bool


FULL = Scale(
    deadline=540,
    rounds=2,
    warm_up=0.5,
    seconds=1.5,
    idle=(200, 2000),
    storm=2000,
    connections=(100, 1_000, 10_000),
    live_codes=(10, 100_000, 900_000),
    all_servers=True,
)
QUICK = Scale(
    deadline=50,
    rounds=1,
    warm_up=0.1,
    seconds=0.3,
    idle=(100, 600),
    storm=100,
    connections=(100, 300),
    live_codes=(10, 10_000),
    all_servers=False,
)


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one benchmark for one server; `failed` says why there is none."""

    benchmark: str
    server: str
    title: str
    values: Values
    failed: str = ""


@dataclass(slots=True)
class Run:
    """`servers`: those that run, by key. `skipped`: what could not be measured, and why. `folder`: for files of this run."""

    scale: Scale
    folder: Path
    database: PairingDatabase
    load: Load
    say: Callable[[str], None]
    server_core: int
    servers: dict[str, Server] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add_server(self, title: str, start: Callable[[], Server]) -> None:
        """Start a server, or note why it cannot be started."""
        try:
            server = start()
        except NotStarted as error:
            self.skip(title, str(error))
        else:
            self.servers[server.key] = server

    def await_servers(self, processes: Processes) -> None:
        """Return when all servers listen; those that do not are noted and left out."""
        for server in list(self.servers.values()):
            try:
                processes.await_port(server.key, server.process, server.port)
            except NotStarted as error:
                del self.servers[server.key]
                self.skip(server.title, str(error))

    def skip(self, what: str, why: str) -> None:
        self.skipped.append(f"{what}: {why}")
        self.say(f"SKIPPED {what}: {why}")

    def record(self, benchmark: str, server: Server, measure: Callable[[], Values], shown: str) -> None:
        """Measure and keep the result; `shown` is the format of the line that is printed."""
        if time.monotonic() - self.began > self.scale.deadline:
            self.skip(f"{benchmark} · {server.title}", "the time was over")
            return
        try:
            values = measure()
        except JobFailed as error:
            self.records.append(Record(benchmark, server.key, server.title, {}, str(error)))
            self.say(f"{benchmark} · {server.title}: FAILED: {error}")
            return
        self.keep(Record(benchmark, server.key, server.title, values))
        self.say(f"{benchmark} · {server.title}: {shown.format(**values)}")

    def keep(self, record: Record) -> None:
        """Keep the record; of several rounds the one with the least CPU, which was disturbed least."""
        for place, known in enumerate(self.records):
            if (known.benchmark, known.server) == (record.benchmark, record.server):
                if known.failed or record.values.get("cpu_us", 0) < known.values.get("cpu_us", 0):
                    self.records[place] = record
                return
        self.records.append(record)
