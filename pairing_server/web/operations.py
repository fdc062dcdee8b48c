"""For operators and developers: health, readiness, metrics, the contract and its page."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from tornado.web import HTTPError, StaticFileHandler

from pairing_server.errors import Unavailable
from pairing_server.web import openapi, schemas
from pairing_server.web.base import EdgeHandler, JSONHandler
from pairing_server.web.edge import Edge

HEALTH = schemas.HealthAnswer()
STATIC = Path(__file__).resolve().parents[1] / "static"


class HealthHandler(JSONHandler):
    """GET /healthz: the process is alive."""

    def get(self) -> None:
        self.answer(HEALTH, {"status": "ok"})


class ReadyHandler(JSONHandler):
    """GET /readyz: it can pair now."""

    async def get(self) -> None:
        if self.edge.draining:
            raise Unavailable("The server is stopping.", reasons=["draining"])
        if self.edge.starting:
            raise Unavailable("The server waits for its database.", reasons=["starting"])
        try:
            await self.deps.database.ready()
        except Unavailable as error:
            reason = f"database_{getattr(error, 'reason', None) or 'busy'}"
            raise Unavailable(error.text, reasons=[reason]) from error
        self.answer(HEALTH, {"status": "ready"})


class EdgeCollector:
    """The process's own counts in Prometheus' form, read when asked: counting costs the relay path nothing."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def collect(self) -> Iterator[Metric]:
        hub, audit = self._edge.deps.hub, self._edge.deps.audit
        yield InfoMetricFamily("pairing_build", "This release.", value={"version": self._edge.version})
        yield GaugeMetricFamily("pairing_connections", "Open WebSockets.", value=len(hub.sessions))
        yield CounterMetricFamily(
            "pairing_connections_opened", "WebSockets opened.", value=hub.counts.connections_opened
        )
        channels = GaugeMetricFamily("pairing_channels", "Channels by members connected.", labels=["members"])
        counts = [len(channel.members) for channel in hub.channels.values()]
        for members in (0, 1, 2):
            channels.add_metric([str(members)], counts.count(members))
        yield channels
        yield _labelled("pairing_messages_relayed", "Messages relayed.", "type", hub.counts.relayed)
        yield CounterMetricFamily(
            "pairing_settings_echoes", "Settings that changed nothing.", value=hub.counts.echoes
        )
        yield CounterMetricFamily(
            "pairing_audio_dropped",
            "Audio chunks dropped for slow receivers.",
            value=hub.counts.audio_dropped,
        )
        pairings = CounterMetricFamily(
            "pairing_pairings", "What became of codes and pairings.", labels=["outcome"]
        )
        for outcome, name, result in _OUTCOMES:
            pairings.add_metric([outcome], audit.counts[(name, result)])
        yield pairings
        refused = CounterMetricFamily(
            "pairing_refusals", "Refusals by edge and reason.", labels=["edge", "reason"]
        )
        for edge, reasons in (("http", self._edge.refused), ("ws", hub.counts.refused)):
            for reason, count in sorted(reasons.items()):
                refused.add_metric([edge, reason], count)
        yield refused
        yield CounterMetricFamily(
            "pairing_audit_lost", "Audit events lost, waiting to be noted.", value=audit.lost
        )


_OUTCOMES = (
    ("created", "pairing.code_created", "success"),
    ("redeemed", "pairing.redeem", "success"),
    ("refused", "pairing.redeem", "failure"),
    ("expired", "pairing.code_expired", "success"),
    ("closed", "pairing.closed", "success"),
)


def _labelled(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


class MetricsHandler(EdgeHandler):
    """GET /metrics: counts in Prometheus' text form."""

    def get(self) -> None:
        registry = CollectorRegistry()
        registry.register(EdgeCollector(self.edge))
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(registry))


class OpenAPIHandler(JSONHandler):
    """GET /openapi.json: the HTTP contract, made from the schemas."""

    def get(self) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(openapi.contract(self.edge.version)))


class DocsHandler(EdgeHandler):
    """GET /docs: a page of the contract; nothing on it is loaded from elsewhere."""

    def get(self) -> None:
        protect_page(self)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((STATIC / "docs" / "index.html").read_bytes())


class PageFileHandler(EdgeHandler, StaticFileHandler):
    """Files of our pages."""

    def initialize(self, edge: Edge, path: str) -> None:  # type: ignore[override]
        EdgeHandler.initialize(self, edge)
        StaticFileHandler.initialize(self, path)

    def prepare(self) -> None:
        if "\0" in self.path_args[0]:
            raise HTTPError(404)

    def set_extra_headers(self, path: str) -> None:
        protect_page(self)
        self.set_header("Cache-Control", "no-cache")

    def head(self, *args: str) -> Awaitable[None]:
        return StaticFileHandler.head(self, args[0])


def protect_page(handler: EdgeHandler) -> None:
    """A page runs our scripts only and is shown in nobody's frame. (The viewer sets styles inline.)"""
    handler.set_header(
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )
