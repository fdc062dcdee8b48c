"""The filter of the audit log, and its SQL.

The SQL is about rows `a` of audit_events. Values always go as parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple
from uuid import UUID


class Kind(NamedTuple):
    """What an index keeps together."""

    event: str
    outcome: str
    severity: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events; None: any. `since` is included, `until` is not.

    `event`: names with commas between them; `auth.*` is all that begin so. `severity`: this or more severe.
    """

    since: datetime | None = None
    until: datetime | None = None
    event: str | None = None
    actor: str | None = None
    address: IPv4Network | IPv6Network | None = None
    pairing: UUID | None = None
    outcome: str | None = None
    connection: UUID | None = None
    severity: int | None = None

    def attributes(self) -> dict[str, str]:
        """What it says, as attributes of an event."""
        given = ((part.name, getattr(self, part.name)) for part in fields(self))
        return {name: str(value) for name, value in given if value is not None}

    def has(self, kind: Kind) -> bool:
        """Whether events of that kind may match."""
        return (
            (self.event is None or any(_named(kind.event, name) for name in self.event.split(",")))
            and self.outcome in (None, kind.outcome)
            and (self.severity is None or kind.severity <= self.severity)
        )

    def months(self, now: datetime) -> list[str] | None:
        """The months of its time until `now`, as partitions are named; None: all."""
        if self.since is None:
            return None
        months, at = [], self.since.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while at < (self.until or now):
            months.append(f"{at:%Y%m}")
            at = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
        return months

    @property
    def of_kinds(self) -> bool:
        return self.event is not None or self.outcome is not None or self.severity is not None

    @property
    def host(self) -> bool:
        """Whether `address` is one address."""
        return self.address is not None and self.address.num_addresses == 1


def _named(event: str, name: str) -> bool:
    return event.startswith(name[:-1]) if name.endswith(".*") else event == name


@dataclass(slots=True)
class Conditions:
    """SQL about the rows `a`, and its values."""

    parts: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, part: str, **values: Any) -> None:
        self.parts.append(part)
        self.values.update(values)

    def __str__(self) -> str:
        return " AND ".join(self.parts) or "true"


def within(which: Filter) -> Conditions:
    """The filter's time."""
    conditions = Conditions()
    if which.since is not None:
        conditions.add("a.recorded_at >= :since", since=which.since)
    if which.until is not None:
        conditions.add("a.recorded_at < :until", until=which.until)
    return conditions


COLUMN_OF = {"pairing": "pairing_id", "connection": "connection_id", "actor": "actor_subject"}


def add(conditions: Conditions, which: Filter, name: str) -> None:
    """One part of the filter: a pairing, a connection, an actor or an address."""
    if name in COLUMN_OF:
        conditions.add(f"a.{COLUMN_OF[name]} = :{name}", **{name: getattr(which, name)})
    elif which.host and which.address is not None:
        conditions.add(f"a.address = {_INET}", address=str(which.address.network_address))
    else:
        conditions.add(f"a.address <<= {_INET}", address=str(which.address))


_INET = "CAST(CAST(:address AS text) AS inet)"


def beside(which: Filter, asked: frozenset[str]) -> Conditions:
    """The filter without its time and without the parts in `asked`."""
    conditions = Conditions()
    for name in (*COLUMN_OF, "address"):
        if name not in asked and getattr(which, name) is not None:
            add(conditions, which, name)
    if "event" not in asked:
        _add_kinds(conditions, which)
    return conditions


def _add_kinds(conditions: Conditions, which: Filter) -> None:
    if which.event is not None:
        names = which.event.split(",")
        conditions.add(
            "(a.event = ANY(CAST(:names AS text[])) OR EXISTS ("
            "SELECT FROM unnest(CAST(:beginnings AS text[])) AS name WHERE starts_with(a.event, name)))",
            names=[name for name in names if not name.endswith(".*")],
            beginnings=[name[:-1] for name in names if name.endswith(".*")],
        )
    if which.outcome is not None:
        conditions.add("a.outcome = :outcome", outcome=which.outcome)
    if which.severity is not None:
        conditions.add("a.severity <= :severity", severity=which.severity)


def matching(which: Filter) -> Conditions:
    """The whole filter."""
    conditions, rest = within(which), beside(which, frozenset())
    return Conditions(conditions.parts + rest.parts, {**conditions.values, **rest.values})
