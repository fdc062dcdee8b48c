"""The limits of plain HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPLimits:
    """Sizes in bytes, times in seconds. `connections_per_address`: those that are no WebSockets.

    A request's header and its body each have their time, counted from their first byte; between requests a connection may be
    idle. `read_timeout`: within that a client must take at least a part of what waits for it.
    """

    connections_per_address: int
    body_size: int
    header_size: int
    header_timeout: float
    body_timeout: float
    idle_timeout: float
    read_timeout: float
