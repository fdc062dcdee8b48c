"""How many file descriptors the process may have, and which of them are for clients."""

from __future__ import annotations

import resource
from dataclasses import dataclass

# Those that no client gets: the database and the audit log need some.
RESERVED = 64
# Of these, those that answer requests, such as a probe of health, while all others are taken by WebSockets.
FOR_REQUESTS = 16


@dataclass(slots=True)
class Descriptors:
    """WebSockets have numbers below `websockets`, plain requests below `requests`. The lowest free number is given out first,
    so a number says how many are in use."""

    websockets: int
    requests: int


def of_process() -> Descriptors:
    """Of this process, by its limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return Descriptors(2**31, 2**31)
    reserved = min(RESERVED, limit // 4)
    return Descriptors(limit - reserved, limit - reserved + min(FOR_REQUESTS, reserved // 4))


def raise_limit() -> None:
    """Let this process and those it starts have as many descriptors as the system allows without privileges."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
