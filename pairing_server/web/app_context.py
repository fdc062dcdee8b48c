"""What all handlers of one node share: the services, what a request is checked with, and the counts for the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import Histogram
from tornado.httputil import HTTPServerRequest

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import OriginNotAllowed
from pairing_server.metrics import histogram
from pairing_server.relay.hub import Hub
from pairing_server.security.addresses import client_address, is_trusted
from pairing_server.security.limits import SlidingWindow
from pairing_server.security.origins import Origins, is_origin_of, is_own_page, same_host
from pairing_server.security.tokens import Tokens
from pairing_server.services.codes import CodeLimits
from pairing_server.services.container import Services
from pairing_server.services.local_rates import LocalRates
from pairing_server.services.rules import PairingRules
from pairing_server.text import clean
from pairing_server.tracing import Traces
from pairing_server.web.descriptors import Descriptors, of_process
from pairing_server.web.http_limits import HTTPLimits
from pairing_server.web.lingering import LingeringSockets

log = logging.getLogger(__name__)

# Seconds.
LAG_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
RELAY_BOUNDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1)
# How many refused origins the log names: a client can invent any number.
MOST_ORIGINS = 100
PAIR_BOUNDS = (5, 10, 15, 20, 30, 45, 60, 120, 300, 600)


def _peer(request: HTTPServerRequest) -> str:
    """The other end of the request's connection."""
    context: Any = getattr(request.connection, "context", None)
    peer = context.address if context is not None else None
    return str(peer[0]) if isinstance(peer, tuple) else "127.0.0.1"


def _measured(name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> Any:
    """A field with a histogram of its own for each process."""
    return field(default_factory=partial(histogram, name, text, bounds, labels))


@dataclass(slots=True)
class AppContext:
    """One for each process. `now`: the loop's monotonic seconds."""

    services: Services
    audit: AuditLog
    database: Database
    hub: Hub
    tokens: Tokens
    rules: PairingRules
    code_limits: CodeLimits
    traces: Traces
    origins: Origins
    trusted: tuple[IPv4Network | IPv6Network, ...]
    handshake_failures: SlidingWindow
    rates: LocalRates
    http_limits: HTTPLimits
    now: Callable[[], float]
    version: str
    starting: bool = False
    demo: bool = False
    draining: bool = False
    descriptors: Descriptors = field(default_factory=of_process)
    lingering: LingeringSockets = field(default_factory=LingeringSockets)
    refused: Counter[str] = field(default_factory=Counter)
    # By method, route and status class, as in ("GET", "/api/pairings/{}", "2xx").
    answered: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    # None: not known.
    last_backup: datetime | None = None
    loop_lag: Histogram = _measured(
        "pairing_loop_lag_seconds", "How late the event loop was, twice a second.", LAG_BOUNDS
    )
    relay_time: Histogram = _measured(
        "pairing_relay_seconds",
        "From a message's arrival in the process until its peer has it or it is queued, one in 64.",
        RELAY_BOUNDS,
    )
    http_time: Histogram = _measured(
        "pairing_http_seconds",
        "HTTP requests, WebSockets and their upgrade left out.",
        LAG_BOUNDS,
        ("route",),
    )
    time_to_pair: Histogram = _measured(
        "pairing_time_to_pair_seconds",
        "From a code's making until both devices have met for the first time.",
        PAIR_BOUNDS,
    )
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    # Those that the log has named.
    _refused_origins: set[str] = field(default_factory=set)

    @property
    def base_path(self) -> str:
        """The path of PAIRING_PUBLIC_URL, as "/pairing"; "" for none."""
        return urlsplit(self.rules.public_url).path

    def address(self, request: HTTPServerRequest) -> str:
        """The client's address. A forwarded one counts if a trusted proxy sent it."""
        return client_address(_peer(request), request.headers.get_list("X-Forwarded-For"), self.trusted)

    def traceparent(self, request: HTTPServerRequest) -> str | None:
        """The span that the request is part of, if a trusted proxy sent it."""
        given = request.headers.get("Traceparent")
        return given if given is not None and is_trusted(_peer(request), self.trusted) else None

    def origin_allowed(self, request: HTTPServerRequest) -> bool:
        """Whether the origin is absent (a native client), the server's own, or in PAIRING_ALLOWED_ORIGINS."""
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        if is_origin_of(origin, self.rules.public_url):
            return True
        host = request.headers.get("Host", "")
        return same_host(origin, request.protocol, host) or self.origins.allows(origin)

    def refuse_origin(self, request: HTTPServerRequest) -> OriginNotAllowed:
        """The error for a request whose origin is not allowed; the first of each origin is logged.

        A page of this server that was opened by a name that it does not know gets the setting to be set: that name
        proves nothing by itself (see security/origins.py).
        """
        origin = clean(request.headers.get("Origin", ""), 200)
        own = is_own_page(origin, request.headers.get("Host", ""))
        if len(self._refused_origins) < MOST_ORIGINS and origin not in self._refused_origins:
            self._refused_origins.add(origin)
            setting = "PAIRING_PUBLIC_URL" if own else "PAIRING_ALLOWED_ORIGINS"
            log.warning("origin refused", extra={"origin": origin, "allow_with": f"{setting}={origin}"})
        if not own:
            return OriginNotAllowed(origin=origin)
        return OriginNotAllowed(
            f"This page was opened at {origin}, which the server does not know as its own address. Its operator must set"
            f" PAIRING_PUBLIC_URL={origin}{self.base_path}, or add {origin} to PAIRING_ALLOWED_ORIGINS.",
            origin=origin,
            setting="PAIRING_PUBLIC_URL",
        )

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run the coroutine in the background. An exception is logged."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("background work failed", extra={"error": str(error)})

    async def settled(self) -> None:
        """Wait until everything spawned is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
