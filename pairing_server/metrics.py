"""Histograms, which have no place of their own among the counts of the relay and the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Histogram


def histogram(name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
    """A histogram of one node. It is in no registry: several nodes may run in one process. See web/metrics.py."""
    return Histogram(name, text, labels, buckets=bounds, registry=None)


def counts_of(measured: Histogram) -> list[int]:
    """For each bound how many values were not above it, and at last how many there were."""
    [metric] = measured.collect()
    return [int(sample.value) for sample in metric.samples if sample.name.endswith("_bucket")]
