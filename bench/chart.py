"""The bar charts of a run, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench import connections
from bench.report import Results
from bench.run import Record
from bench.servers import OURS

WIDTH, LABEL, BAR = 880, 250, 520
ROW, GAP, HEAD = 24, 34, 26
_STYLE = (
    "text{font:13px sans-serif;fill:#222}.head{font-weight:bold;font-size:15px}"
    ".bar{fill:#9aa7b8}.ours{fill:#1f6feb}.page{fill:#fff}"
)


def svg(records: Sequence[Record], subtitle: str) -> str:
    """One panel for each relay benchmark and for the memory, the shortest bar first."""
    results = Results(records)
    panels = [
        (f"{kind.name}: CPU of the server, µs a message", kind.name, "cpu_us", 1.0)
        for kind in connections.RELAY
    ]
    panels.append((f"{connections.IDLE}, KB", connections.IDLE, "bytes", 1e-3))
    panels.append((f"{connections.FLOODED}: p99 of the quiet ones, ms", connections.FLOODED, "p99_ms", 1.0))
    parts: list[str] = []
    top = 46
    for heading, benchmark, name, scale in panels:
        bars = [
            (record.title, record.values[name] * scale, record.server == OURS)
            for record in results.of(benchmark)
            if name in record.values
        ]
        if bars:
            parts += _panel(heading, sorted(bars, key=lambda bar: bar[1]), top)
            top += HEAD + ROW * len(bars) + GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" role="img">',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{top}"/>',
            f'<text x="10" y="26">{escape(subtitle)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(heading: str, bars: Sequence[tuple[str, float, bool]], top: int) -> list[str]:
    longest = max(max(value for _, value, _ in bars), 1e-9)
    parts = [f'<text class="head" x="10" y="{top + 14}">{escape(heading)}</text>']
    for place, (title, value, ours) in enumerate(bars):
        y = top + HEAD + place * ROW
        length = max(1.0, max(0.0, value) / longest * BAR)
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(title)}</text>',
            f'<rect class="{"ours" if ours else "bar"}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{ROW - 6}"/>',
            f'<text x="{LABEL + length + 6:.1f}" y="{y + 14}">{value:,.1f}</text>',
        ]
    return parts
