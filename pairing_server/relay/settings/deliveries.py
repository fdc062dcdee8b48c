"""The deliveries to one device that still matter, and how a message is compared with all of them at a bounded cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pairing_server.relay.settings.json_values import Values

DELIVERIES_KEPT = 256  # four seconds of a slider's 60 a second
BYTES_KEPT = 1 << 20
COMPARED = 1024  # values that one message is compared with: deliveries kept, times keys that vary among them


@dataclass(slots=True, eq=False)
class Delivery:
    """A document sent to a device. `is_news`: it differs from what the device was expected to hold.

    `changed`: the keys in which it differs from the delivery before.
    """

    document: Values
    changed: tuple[str, ...]
    rev: int
    at: float
    is_news: bool
    again: bool  # this rev was delivered before
    missed: bool = False  # no echo of it came while it was expected


@dataclass(slots=True)
class Deliveries:
    """A row of deliveries that follow each other, the oldest first.

    `varying` are the keys that are not the same in all of them: only these have to be compared with each.
    """

    # Not a deque: most stay empty, and an empty deque has 760 bytes.
    _row: list[Delivery] = field(default_factory=list)
    varying: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self._row)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._row)

    def __reversed__(self) -> Iterator[Delivery]:
        return reversed(self._row)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery in self._row

    def __getitem__(self, place: int) -> Delivery:
        return self._row[place]

    def append(self, delivery: Delivery, size: int) -> None:
        """Add the newest, of `size` bytes, and forget the oldest that there is no room for."""
        if self._row:
            self.varying.update(delivery.changed)
        self._row.append(delivery)
        room = min(DELIVERIES_KEPT, max(1, BYTES_KEPT // size))
        while len(self._row) > room or len(self._row) * len(self.varying) > COMPARED:
            self.pop_oldest()

    def pop_oldest(self) -> Delivery:
        oldest = self._row.pop(0)
        for key in self._row[0].changed if self._row else ():
            self.varying[key] -= 1
            if not self.varying[key]:
                del self.varying[key]
        return oldest

    def clear(self) -> None:
        self._row.clear()
        self.varying.clear()

    def split(self, values: Values) -> tuple[Values, Values]:
        """The values whose keys are the same in all deliveries, and the others."""
        varying = self.varying
        if not varying:
            return values, {}
        same: Values = {}
        other: Values = {}
        for key, value in values.items():
            (other if key in varying else same)[key] = value
        return same, other
