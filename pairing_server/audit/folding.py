"""Folding repeated events: of one kind from one source the first of a minute stay single, the rest become one with a
count."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime

from pairing_server.security.addresses import limit_key
from pairing_server.store.audit_events import Event

SINGLY = 10
# How many kinds and sources are counted apart in a minute; beyond that, sources are not.
MOST_KINDS = 10_000

_Kind = tuple[str | None, ...]


class Folding:
    """One minute's events, in this process."""

    def __init__(self) -> None:
        self._minute: datetime | None = None
        self._seen: Counter[_Kind] = Counter()
        self._folded: dict[_Kind, Event] = {}

    def is_over(self, now: datetime) -> bool:
        """Whether it is another minute than that of the last event."""
        return now.replace(second=0, microsecond=0) != self._minute

    def folds(self, event: Event) -> bool:
        """Count the event. True if it goes into a count, False if it is to be recorded singly.

        The counts of the minute before must have been taken out.
        """
        self._minute = event.occurred_at.replace(second=0, microsecond=0)
        kind = _kind(event)
        if kind not in self._seen and len(self._seen) >= MOST_KINDS:
            event = replace(event, actor_subject=None, address=None)
            kind = (*kind[:3], "from many sources")
        self._seen[kind] += 1
        if self._seen[kind] <= SINGLY:
            return False
        before = self._folded.get(kind)
        self._folded[kind] = replace(event, count=event.count + (before.count if before else 0))
        return True

    def take_out(self) -> list[Event]:
        """The folded events so far; counting begins anew."""
        folded, self._folded = self._folded, {}
        self._seen.clear()
        return list(folded.values())


def _kind(event: Event) -> _Kind:
    """The source is the actor, or else the address."""
    source = event.actor_subject or limit_key(event.address or "")
    return (event.event, event.outcome, event.reason, source)
