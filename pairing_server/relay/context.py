"""What all connections and channels of a node share: limits, clock, timer, counters, and where to report to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from prometheus_client import Histogram

from pairing_server.metrics import histogram
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.counters import Counters
from pairing_server.relay.identity import Peer

# Runs a call after that many seconds of the loop's time.
CallLater = Callable[[float, Callable[[], None]], object]

# Seconds.
WAIT_BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class RelayEvent:
    """An event for the audit log. `peer`: whose connection it is about; None for the server's own."""

    name: str
    outcome: str
    peer: Peer | None = None
    pairing_id: UUID | None = None
    attributes: Mapping[str, object] = field(default_factory=dict)


Report = Callable[[RelayEvent], None]


def _queue_wait() -> Histogram:
    return histogram(
        "pairing_queue_wait_seconds",
        "How long messages waited until a slow receiver took more, one of each portion that left a queue; those"
        " that went straight through did not wait, and are not in it.",
        WAIT_BOUNDS,
    )


@dataclass(slots=True)
class RelayContext:
    """`limits` change when the configuration is read again, for what is opened after that. `now`: monotonic seconds."""

    limits: ConnectionLimits
    now: Callable[[], float]
    call_later: CallLater
    report: Report
    counters: Counters = field(default_factory=Counters)
    queue_wait: Histogram = field(default_factory=_queue_wait)
