"""All counts and histograms of a node in Prometheus' text form. They are read when they are asked for: the relay path pays nothing.

No user, device or channel is named in a label: their number has no bound, and they are private.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from pairing_server.metrics import counts_of
from pairing_server.web.app_context import AppContext

# By the audit log's counts, since these are the events of record.
_OUTCOMES = (
    ("created", "pairing.code_created", "success"),
    ("redeemed", "pairing.redeem", "success"),
    ("refused", "pairing.redeem", "failure"),
    ("expired", "pairing.code_expired", "success"),
    ("closed", "pairing.closed", "success"),
)


def exposition(app: AppContext) -> bytes:
    """All metrics of the process in the text form."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(app))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class NodeCollector:
    """The process's own counts."""

    def __init__(self, app: AppContext) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        app = self._app
        build = {"version": app.version, "python": platform.python_version()}
        yield InfoMetricFamily("pairing_build", "This release, and what runs it.", value=build)
        yield GaugeMetricFamily("pairing_draining", "1 while the server stops.", value=float(app.draining))
        yield from self._relay()
        yield from self._queues()
        yield from self._pairings()
        yield from self._http()
        yield from self._database()
        yield from self._audit()
        yield _shown(app.loop_lag)

    def _relay(self) -> Iterator[Metric]:
        hub = self._app.hub
        yield GaugeMetricFamily("pairing_connections", "Open WebSockets.", value=len(hub.connections))
        yield CounterMetricFamily(
            "pairing_connections_opened", "WebSockets opened.", value=hub.context.counters.connections_opened
        )
        counts = [len(channel.members) for channel in hub.channels.values()]
        members = {str(number): counts.count(number) for number in (0, 1, 2)}
        yield _gauges("pairing_channels", "Channels by members connected.", "members", members)
        yield _counters("pairing_messages_relayed", "Messages relayed.", "type", hub.context.counters.relayed)
        yield CounterMetricFamily(
            "pairing_settings_echoes",
            "Settings that changed nothing and went no further.",
            value=hub.context.counters.echoes,
        )
        yield CounterMetricFamily(
            "pairing_joins_elsewhere",
            "Joins refused because the other device is connected to another process.",
            value=hub.context.counters.joins_elsewhere,
        )
        yield _shown(self._app.relay_time)

    def _queues(self) -> Iterator[Metric]:
        hub = self._app.hub
        send_queues = [connection.send_queue for connection in hub.connections.values()]
        sizes = [send_queue.size for send_queue in send_queues]
        yield GaugeMetricFamily(
            "pairing_queue_bytes", "Bytes that wait to be sent, altogether.", value=sum(sizes)
        )
        yield GaugeMetricFamily(
            "pairing_queue_bytes_max",
            "Bytes that wait to be sent to the slowest connection.",
            value=max(sizes, default=0),
        )
        yield GaugeMetricFamily(
            "pairing_connections_congested",
            "Connections whose peers are not read for now.",
            value=sum(send_queue.congested for send_queue in send_queues),
        )
        yield _shown(hub.context.queue_wait)
        yield _counters(
            "pairing_dropped",
            "What was not sent to slow receivers: audio, settings that newer ones replaced, messages that wait for"
            " the connection's return.",
            "lane",
            hub.context.counters.dropped,
        )

    def _pairings(self) -> Iterator[Metric]:
        app = self._app
        outcomes = {outcome: app.audit.counts[(name, result)] for outcome, name, result in _OUTCOMES}
        outcomes["active"] = counts_of(self._app.time_to_pair)[-1]
        yield _counters("pairing_pairings", "What became of codes and pairings.", "outcome", outcomes)
        yield _shown(self._app.time_to_pair)
        yield GaugeMetricFamily(
            "pairing_codes_live", "Codes that can be redeemed or name a channel.", value=app.code_limits.live
        )

    def _http(self) -> Iterator[Metric]:
        app = self._app
        requests = CounterMetricFamily(
            "pairing_http_requests",
            "HTTP requests by method, route and status class.",
            labels=["method", "route", "status"],
        )
        for labels, count in sorted(app.answered.items()):
            requests.add_metric(labels, count)
        yield requests
        yield _shown(app.http_time)
        refused = CounterMetricFamily(
            "pairing_refusals", "Refusals by edge and reason.", labels=["edge", "reason"]
        )
        for name, reasons in (("http", app.refused), ("ws", app.hub.context.counters.refused)):
            for reason, count in sorted(reasons.items()):
                refused.add_metric([name, reason], count)
        yield refused

    def _database(self) -> Iterator[Metric]:
        app = self._app
        yield GaugeMetricFamily(
            "pairing_database_up",
            "0 while the database is taken for away.",
            value=float(app.database.breaker.outage is None),
        )
        open_, used, size = app.database.usage()
        usage = {"used": used, "idle": open_ - used, "free": size - open_}
        yield _gauges("pairing_database_connections", "Connections to the database, by use.", "state", usage)
        yield _shown(app.database.seconds)
        yield _timestamp(
            "pairing_backup_timestamp_seconds",
            "When `pairing-server backup` last saved the database with this data directory; 0: not known.",
            app.last_backup,
        )

    def _audit(self) -> Iterator[Metric]:
        app = self._app
        yield GaugeMetricFamily(
            "pairing_audit_waiting", "Audit events not yet written.", value=app.audit.waiting
        )
        yield CounterMetricFamily("pairing_audit_lost", "Audit events lost.", value=app.audit.lost)
        yield GaugeMetricFamily(
            "pairing_audit_spooled_bytes",
            "Audit events on disk, not in the database.",
            value=app.audit.spooled,
        )
        sealer = app.services.audit.sealer
        yield _timestamp(
            "pairing_audit_sealed_timestamp_seconds",
            "When this process last left no audit event to be sealed; 0: not yet.",
            sealer.sealed_at,
        )
        if sealer.copy is not None:
            yield _timestamp(
                "pairing_audit_copied_timestamp_seconds",
                "When this process last left no seal to be copied outside; 0: not yet.",
                sealer.copied_at,
            )


def _counters(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    return _labelled(CounterMetricFamily(name, text, labels=[label]), counts)


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    return _labelled(GaugeMetricFamily(name, text, labels=[label]), values)


def _timestamp(name: str, text: str, moment: datetime | None) -> Metric:
    return GaugeMetricFamily(name, text, value=moment.timestamp() if moment else 0)


def _labelled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, int]) -> Metric:
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _shown(measured: Histogram) -> Metric:
    """The histogram without the time when it was made, and with whole bounds as `le="1"`."""
    [metric] = measured.collect()
    metric.samples = [
        sample._replace(labels={name: bound.removesuffix(".0") for name, bound in sample.labels.items()})
        for sample in metric.samples
        if not sample.name.endswith("_created")
    ]
    return metric
