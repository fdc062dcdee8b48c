"""The limits of plain HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPLimits:
    """`connections_per_address`: those that are no WebSockets."""

    connections_per_address: int
