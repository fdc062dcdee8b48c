"""The summary in a terminal: how much happened when, as small charts, and who stands out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import click

from pairing_server.audit.store.summary import Counted
from pairing_server.audit.summary import Summary, Timeline
from pairing_server.cli.audit.table import OUTCOME_COLOURS
from pairing_server.text import plain

_LEVELS = " ▁▂▃▄▅▆▇█"
_BAR = 24
_NAME = 9


def lines(summary: Summary, width: int) -> Iterator[str]:
    """What a reviewer asks first, for a terminal of that width."""
    timeline, names = summary.timeline, summary.names
    yield _head(f"{_time(timeline.since)} to {_time(timeline.until)} (UTC)")
    yield from charts(timeline, summary.outcomes, width)
    for what, failed in (("logins", summary.logins), ("redemptions", summary.redemptions)):
        yield from _counted(f"Failed {what} by address", failed.addresses, {})
        yield from _counted(f"Failed {what} by user", failed.users, names)
    yield from _section(
        "Lock-outs",
        (
            (
                _time(found.recorded_at),
                str(found.event.attrs.get("scope", "")),
                names.get(found.event.actor_subject or "", found.event.actor_subject or "nobody known"),
                found.event.address or "-",
                f"until {str(found.event.attrs.get('until', '?'))[:19].replace('T', ' ')}",
            )
            for found in summary.lockouts
        ),
    )
    yield from _section(
        "Hijackers and intruders",
        (
            (
                _time(attempt.last),
                attempt.event + (f" ({attempt.reason})" if attempt.reason else ""),
                names.get(attempt.actor or "", attempt.actor or "nobody known"),
                attempt.address or "-",
                f"{attempt.count:,} times" if attempt.count > 1 else "once",
            )
            for attempt in summary.intruders
        ),
        colour="red",
    )
    yield from _section(
        "New addresses of users",
        (
            (_time(new.first), names.get(new.actor, new.actor), new.address, f"{new.count:,} events")
            for new in summary.new_addresses
        ),
    )


def _head(text: str) -> str:
    return click.style(text, bold=True)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def charts(timeline: Timeline, outcomes: Mapping[str, int], width: int) -> Iterator[str]:
    """A line for each outcome: its share of the time in blocks, each outcome by its own scale, and its count."""
    bars, each = buckets(timeline, max(12, width - _NAME - 14))
    for outcome, colour in OUTCOME_COLOURS.items():
        counts = [bar.get(outcome, 0) for bar in bars]
        drawn = click.style(sparkline(counts), fg=colour)
        yield f"{outcome:{_NAME}}{drawn}  {outcomes.get(outcome, 0):,}"
    span = len(bars)
    form = "%H:%M" if each * span <= timedelta(hours=48) else "%m-%d"
    axis = [" "] * span
    for place in range(0, span - 4, max(8, span // 6)):
        axis[place : place + 5] = f"{timeline.since + each * place:{form}}"
    labels = f"{' ' * _NAME}{''.join(axis).rstrip()}"
    yield click.style(labels, dim=True)
    yield click.style(f"{' ' * _NAME}each block: {_duration(each)}", dim=True)


def buckets(timeline: Timeline, most: int) -> tuple[list[Mapping[str, int]], timedelta]:
    """The bars, the empty ones too, put together until there are no more than `most`; and how long one is."""
    count = max(1, -(-(timeline.until - timeline.since) // timeline.step))
    together = -(-count // most)
    found: list[dict[str, int]] = [{} for _ in range(-(-count // together))]
    for bar in timeline.bars:
        place = min((bar.at - timeline.since) // timeline.step // together, len(found) - 1)
        for outcome, number in bar.outcomes.items():
            found[place][outcome] = found[place].get(outcome, 0) + number
    return list(found), timeline.step * together


def sparkline(counts: Sequence[int]) -> str:
    """A block for each count; only nothing is drawn as nothing."""
    most = max(counts, default=0)
    return "".join(_LEVELS[0 if not count else max(1, round(count / most * 8))] for count in counts)


def _duration(length: timedelta) -> str:
    minutes = int(length.total_seconds()) // 60
    for size, name in ((1440, "d"), (60, "h")):
        if minutes % size == 0:
            return f"{minutes // size} {name}"
    return f"{minutes} min"


def _counted(title: str, counted: Sequence[Counted], names: Mapping[str, str]) -> Iterator[str]:
    most = max((each.count for each in counted), default=1)
    yield from _section(
        title,
        (
            (
                names.get(each.value, each.value),
                "█" * max(1, round(each.count / most * _BAR)),
                f"{each.count:,}",
                f"last {_time(each.last)}",
            )
            for each in counted
        ),
    )


def _section(title: str, rows: Iterable[tuple[str, ...]], colour: str | None = None) -> Iterator[str]:
    cells = [tuple(plain(cell) for cell in row) for row in rows]
    yield ""
    yield _head(title) if cells else f"{_head(title)}  none"
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        yield f"  {click.style(line, fg=colour) if colour else line}"
