"""The results of a run, as Markdown tables and as JSON, with the figures to reach."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import connections, pairings
from bench.load import Values
from bench.run import Record
from bench.servers import OURS
from harness.machine import PAGE_BYTES, processor
from harness.program import ROOT


@dataclass(frozen=True, slots=True)
class Figure:
    """A value to reach, `at_most` or at least. `measured` None: not measured in this run."""

    name: str
    wanted: float
    measured: float | None
    at_most: bool = True

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


class Results:
    """The records of a run, by benchmark and server."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = {(record.benchmark, record.server): record for record in records}

    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(benchmark for benchmark, _ in self._records))

    def of(self, benchmark: str) -> list[Record]:
        return [record for (named, _), record in self._records.items() if named == benchmark]

    def value(self, benchmark: str, server: str, name: str) -> float | None:
        record = self._records.get((benchmark, server))
        return None if record is None else record.values.get(name)

    def ratio(self, name: str, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        """That value of one (benchmark, server) as a share of the other's."""
        above, below = self.value(*one, name), self.value(*other, name)
        return above / below if above is not None and below else None


def figures(records: Sequence[Record]) -> list[Figure]:
    """The figures to reach, from one run on one machine."""
    results = Results(records)
    listed = []
    for kind, by_ws, by_tornado in zip(
        connections.RELAY, (0.65, 0.85, 0.65), (0.22, 0.20, 0.30), strict=True
    ):
        for server, title, wanted in (("ws", "node ws", by_ws), ("tornado", "stock Tornado", by_tornado)):
            share = results.ratio("cpu_us", (kind.name, OURS), (kind.name, server))
            listed.append(Figure(f"{kind.name}: CPU, share of {title}'s", wanted, share))
    slower = results.ratio("p99_ms", (connections.FLOODED, OURS), (connections.QUIET.name, OURS))
    memory = results.value(connections.IDLE, OURS, "bytes")
    done = results.ratio("rate", (pairings.PAIRINGS, OURS), (pairings.POSTS, "tornado"))
    return [
        *listed,
        Figure("p99 of quiet pairs beside a flooding one, times that without", 3, slower),
        Figure(f"{connections.IDLE}, KB", 20, None if memory is None else memory / 1000),
        Figure(
            f"{connections.STORM}: failed handshakes",
            0,
            results.value(connections.STORM, OURS, "handshakes_failed"),
        ),
        Figure("pairings a second, share of bare JSON POSTs", 0.35, done, at_most=False),
    ]


# A column: its heading, and how it is made of a record's values.
Column = tuple[str, Callable[[Values], str]]


def _number(heading: str, name: str, form: str = ",.0f", scale: float = 1.0) -> Column:
    return heading, lambda values: format(values[name] * scale, form) if name in values else "–"


_TIMES = (_number("p50, ms", "p50_ms", ".2f"), _number("p99, ms", "p99_ms", ".2f"))
_CPU, _RATE = _number("CPU, µs each", "cpu_us", ",.1f"), _number("a second", "rate")
_BUSY = _number("server busy", "server_busy", ".0%")
_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "relay": (_CPU, _RATE, *_TIMES, _BUSY, _number("load busy", "load_busy", ".0%")),
    "50 quiet": (_RATE, *_TIMES),
    "memory": (_number("KB", "bytes", ",.1f", 1e-3), _number("server, MB", "server_bytes", ",.0f", 1e-6)),
    "full": (_RATE, _CPU, *_TIMES),
    "storm": (
        _number("connects", "connects"),
        _number("seconds", "seconds", ".1f"),
        _number("failed handshakes", "handshakes_failed"),
        _number("tried again", "retries"),
        _number("p99, ms", "p99_ms"),
    ),
    "": (_RATE, _CPU, *_TIMES, _BUSY),
}


def _table(benchmark: str, records: Sequence[Record]) -> list[str]:
    columns = next(columns for begin, columns in _COLUMNS.items() if benchmark.startswith(begin))
    ordered = sorted(records, key=lambda record: record.values.get("cpu_us", record.values.get("p99_ms", 0)))
    lines = ["| server | " + " | ".join(heading for heading, _ in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for record in ordered:
        if record.failed:
            lines.append(f"| {record.title} | failed: {record.failed} |" + " |" * (len(columns) - 1))
            continue
        title = f"**{record.title}**" if record.server == OURS else record.title
        lines.append(f"| {title} | " + " | ".join(show(record.values) for _, show in columns) + " |")
    return lines


def markdown(records: Sequence[Record], skipped: Sequence[str], machine: Mapping[str, str]) -> str:
    """The whole report."""
    lines = ["## Figures to reach", "", "| figure | wanted | measured | |", "|---|---:|---:|---|"]
    for figure in figures(records):
        measured = "–" if figure.measured is None else f"{figure.measured:.2f}"
        verdict = {True: "reached", False: "**not reached**", None: "not measured"}[figure.met]
        sign = "≤" if figure.at_most else "≥"
        lines.append(f"| {figure.name} | {sign} {figure.wanted:g} | {measured} | {verdict} |")
    results = Results(records)
    for benchmark in results.benchmarks():
        lines += [
            "",
            f"## {benchmark[0].upper()}{benchmark[1:]}",
            "",
            *_table(benchmark, results.of(benchmark)),
        ]
    if skipped:
        lines += ["", "## Not measured", "", *(f"- {line}" for line in skipped)]
    lines += ["", "## Machine", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in machine.items()]
    return "\n".join(lines) + "\n"


def as_json(records: Sequence[Record], skipped: Sequence[str], machine: Mapping[str, str]) -> dict[str, Any]:
    """The whole report for programs."""
    return {
        "machine": dict(machine),
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures(records)],
        "records": [asdict(record) for record in records],
        "skipped": list(skipped),
    }


def describe_machine() -> dict[str, str]:
    """What the figures depend on: processor, memory, versions, commit."""
    changed = " and changes" if _output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return {
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * PAGE_BYTES / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Node.js": _output("node", "--version").removeprefix("v") or "none",
        "load average": f"{os.getloadavg()[0]:.1f} at the start",
        "commit": (_output("git", "rev-parse", "--short", "HEAD") or "unknown") + changed,
    }


def _output(*command: str) -> str:
    """What the program prints; nothing if there is no such program or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
