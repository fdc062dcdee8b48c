"""What a run has found, as Markdown tables and as JSON, with the figures that are to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import cells, database
from bench.loads import Values
from bench.ours import OURS
from bench.run import Record


@dataclass(frozen=True, slots=True)
class Figure:
    """Something to be reached, `at_most` or at least. `measured` None: not measured in this run."""

    name: str
    wanted: float
    measured: float | None
    at_most: bool = True

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


class Found:
    """The records of a run, by cell and server."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = {(record.cell, record.server): record for record in records}

    def cells(self) -> list[str]:
        return list(dict.fromkeys(cell for cell, _ in self._records))

    def of(self, cell: str) -> list[Record]:
        return [record for (named, _), record in self._records.items() if named == cell]

    def value(self, cell: str, server: str, name: str) -> float | None:
        record = self._records.get((cell, server))
        return None if record is None else record.values.get(name)

    def ratio(self, name: str, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        """That value of one (cell, server) as a share of the other's."""
        above, below = self.value(*one, name), self.value(*other, name)
        return above / below if above is not None and below else None


def figures(records: Sequence[Record]) -> list[Figure]:
    """The figures to be reached, in one run on one machine."""
    found = Found(records)
    listed = []
    for (cell, *_), by_ws, by_tornado in zip(
        cells.RELAY, (0.65, 0.85, 0.65), (0.22, 0.20, 0.30), strict=True
    ):
        for server, title, wanted in (("ws", "node ws", by_ws), ("tornado", "stock Tornado", by_tornado)):
            share = found.ratio("cpu_us", (cell, OURS), (cell, server))
            listed.append(Figure(f"{cell}: CPU, share of {title}'s", wanted, share))
    slower = found.ratio("p99_ms", (cells.FLOODED, OURS), (cells.QUIET, OURS))
    memory = found.value(cells.IDLE, OURS, "bytes")
    done = found.ratio("rate", (database.PAIRINGS, OURS), (database.POSTS, "tornado"))
    return [
        *listed,
        Figure("p99 of quiet pairs beside a flooding one, times that without", 3, slower),
        Figure(f"{cells.IDLE}, KB", 20, None if memory is None else memory / 1000),
        Figure(f"{cells.STORM}: failed handshakes", 0, found.value(cells.STORM, OURS, "handshakes_failed")),
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


def _table(cell: str, records: Sequence[Record]) -> list[str]:
    columns = next(columns for begin, columns in _COLUMNS.items() if cell.startswith(begin))
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
    found = Found(records)
    for cell in found.cells():
        lines += ["", f"## {cell[0].upper()}{cell[1:]}", "", *_table(cell, found.of(cell))]
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
