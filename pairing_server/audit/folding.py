"""Floods of one kind of event from one source: the first of a minute count singly, the rest as one with a count."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime

from pairing_server.security.addresses import limit_key
from pairing_server.store.audit_events import Event

SINGLY = 10
# How many kinds and sources are told apart in a minute; beyond that, sources are not.
MOST_KINDS = 10_000

_Kind = tuple[str | None, ...]


class Floods:
    """One minute's events, in this process."""

    def __init__(self) -> None:
        self._minute: datetime | None = None
        self._seen: Counter[_Kind] = Counter()
        self._folded: dict[_Kind, Event] = {}

    def is_over(self, now: datetime) -> bool:
        """Whether it is another minute than that of the last event."""
        return now.replace(second=0, microsecond=0) != self._minute

    def takes(self, event: Event) -> bool:
        """Count the event. True if it goes into a count, False if it is to be recorded singly.

        What the minute before came to must have been taken out.
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
        """What the floods came to so far; counting begins anew."""
        folded, self._folded = self._folded, {}
        self._seen.clear()
        return list(folded.values())


def _kind(event: Event) -> _Kind:
    """The source is whose act it is, or else the address it comes from."""
    source = event.actor_subject or limit_key(event.address or "")
    return (event.event, event.outcome, event.reason, source)
