"""Events in a terminal: aligned columns, colours, and no control characters that a client has sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import click

from pairing_server.audit.query import EventDetails
from pairing_server.audit.store.search import Recorded
from pairing_server.text import plain
from pairing_server.web.audit.questions import SEVERITIES

OUTCOME_COLOURS = {"success": "green", "failure": "yellow", "denied": "red", "error": "magenta"}
_HEADS = ("number", "time (UTC)", "event", "outcome", "who", "address", "details")
# Columns that are wider are cut, but for the last.
_WIDEST = (20, 19, 26, 7, 36, 39)
_MIDDLE = "\N{MIDDLE DOT}"


def table(events: Sequence[Recorded], names: Mapping[str, str], width: int | None = None) -> list[str]:
    """One line an event, under a line of heads; no longer than `width`, where there is a terminal."""
    rows = [_cells(recorded, names) for recorded in events]
    widest = _WIDEST if width is None else _ON_A_TERMINAL
    widths = [min(most, max(len(row[place]) for row in [_HEADS, *rows])) for place, most in enumerate(widest)]
    if width is not None:
        widths.append(max(len(_HEADS[-1]), width - sum(widths) - 2 * len(widths)))
    lines = [click.style(_line(_HEADS, widths), bold=True)]
    for recorded, row in zip(events, rows, strict=True):
        lines.append(_line(row, widths, _colour(recorded)))
    return lines


# The beginning of a subject is enough to distinguish it; `audit show` has it whole.
_ON_A_TERMINAL = (*_WIDEST[:4], 16, 39)
# Wide enough for most events.
_FOLLOWED = (8, 19, 24, 7, 16, 15)


def followed(recorded: Recorded, names: Mapping[str, str]) -> str:
    """One event's line, for events that are printed as they come."""
    return _line(_cells(recorded, names), _FOLLOWED, _colour(recorded))


def heads() -> str:
    """The line above those of `followed`."""
    return click.style(_line(_HEADS, _FOLLOWED), bold=True)


def _colour(recorded: Recorded) -> Mapping[int, str]:
    colours = {3: OUTCOME_COLOURS[recorded.event.outcome]}
    if recorded.event.severity <= 3:
        colours[2] = "red"
    return colours


def _line(cells: Sequence[str], widths: Sequence[int], colours: Mapping[int, str] | None = None) -> str:
    shown = []
    for place, cell in enumerate(cells):
        width = widths[place] if place < len(widths) else 0
        if width and len(cell) > width:
            cell = cell[: width - 1] + "…"
        cell = cell.rjust(width) if place == 0 else cell.ljust(width)
        colour = (colours or {}).get(place)
        shown.append(click.style(cell, fg=colour) if colour else cell)
    return "  ".join(shown).rstrip()


def _cells(recorded: Recorded, names: Mapping[str, str]) -> tuple[str, ...]:
    event = recorded.event
    cells = (
        str(recorded.seq),
        f"{recorded.recorded_at:%Y-%m-%d %H:%M:%S}",
        event.event + (f" ×{event.count}" if event.count > 1 else ""),
        event.outcome,
        names.get(event.actor_subject or "", event.actor_subject or event.actor_kind),
        event.address or "-",
        " ".join(_details(recorded)),
    )
    return tuple(plain(cell) for cell in cells)


def _details(recorded: Recorded) -> Iterable[str]:
    event = recorded.event
    if event.reason:
        yield event.reason
    yield from (f"{key}={_shown(value)}" for key, value in event.attrs.items() if value is not None)
    if event.pairing_id:
        yield f"pairing={event.pairing_id}"


def _shown(value: object) -> str:
    """In quotes if it could be taken for several values: a client may call itself `token_via=header`."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ' ="') else text


def details(found: EventDetails) -> list[str]:
    """One event, a line for each field."""
    recorded, names, seal = found.event, found.names, found.seal
    event = recorded.event
    actor = event.actor_subject
    known = {
        "number": recorded.seq,
        "event": event.event + (f" ×{event.count}" if event.count > 1 else ""),
        "severity": f"{event.severity} {SEVERITIES[event.severity]}",
        "outcome": event.outcome,
        "reason": event.reason,
        "occurred": event.occurred_at.isoformat().replace("+00:00", "Z"),
        "recorded": recorded.recorded_at.isoformat().replace("+00:00", "Z"),
        "who": None if actor is None else f"{names[actor]} ({actor})" if actor in names else actor,
        "kind of actor": event.actor_kind,
        "authenticated": event.auth_method,
        "address": event.address,
        "pairing": event.pairing_id,
        "connection": event.connection_id,
        "request": event.request_id,
        "event id": event.event_id,
        "node": f"{event.node}, version {event.app_version}",
        "sealed": f"in seal {seal.number} of {seal.sealed_at}" if seal else "not yet",
        **{f"{_MIDDLE} {key}": value for key, value in event.attrs.items()},
    }
    width = max(map(len, known))
    return [
        f"{click.style(plain(name).ljust(width), dim=True)}  {plain(str(value))}"
        for name, value in known.items()
        if value is not None
    ]
