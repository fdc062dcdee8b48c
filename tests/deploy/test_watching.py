"""deploy/prometheus and deploy/grafana name metrics and labels that a running server has."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.program import ROOT
from tests.devices import Site
from tests.programs import needs

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "pairing-server.json"
_METRIC = re.compile(r"\b((?:pairing|process)_[a-z_]+)(?:\{([^}]*)\})?")
# What Prometheus itself puts on everything.
_ADDED = {"instance", "job"}


def dashboard() -> list[str]:
    loaded = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [target["expr"] for panel in loaded["panels"] for target in panel["targets"]]


def alerts() -> list[str]:
    return re.findall(r"expr: (.*(?:\n {10}.*)*?)\n {8}\w", ALERTS.read_text(encoding="utf-8"))


def named(expressions: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for expression in expressions:
        for name, selector in _METRIC.findall(expression):
            yield name, dict(re.findall(r'(\w+)=~?"([^"]*)"', selector))


async def unneeded(_: str) -> None:
    """A place for copies of seals."""


async def samples(site: Site) -> dict[str, list[dict[str, str]]]:
    """What /metrics has after some use: the labels by the name of each sample."""
    account = await site.account()
    desktop, mobile = await site.pair(account)
    mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {}})
    await mobile.socket.pending()
    await site.get("/nothing-here")
    site.node.app.answered["POST", "/api/pair-device", "5xx"] += 0  # none has failed yet
    site.node.services.audit.sealer.copy = unneeded
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families((await site.get("/metrics")).body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    assert desktop.channel
    return found


@pytest.mark.parametrize("source", [dashboard, alerts], ids=["dashboard", "alerts"])
async def test_every_metric_and_label_that_is_named_exists(site: Site, source: object) -> None:
    expressions = source()  # type: ignore[operator]
    assert len(expressions) >= 11
    found = await samples(site)
    for name, labels in named(expressions):
        assert name in found, name
        for label, value in labels.items():
            if label not in _ADDED:
                assert any(sample.get(label) == value for sample in found[name]), f"{name}{{{label}={value}}}"


async def test_every_metric_of_ours_is_on_the_dashboard(site: Site) -> None:
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name, _ in named(dashboard())}
    ours = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for name in await samples(site)
        if name.startswith("pairing_")
    }
    assert ours - shown <= {
        "pairing_connections_opened_total",
        "pairing_draining",
        "pairing_connections_congested",
    }


def test_each_alert_says_what_to_do() -> None:
    text = ALERTS.read_text(encoding="utf-8")
    assert text.count("- alert:") == text.count("summary:") == text.count("action:") == len(alerts())


@needs("promtool")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
def test_the_alerts_on_ages_and_times_fire_when_they_should() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(Path(__file__).with_name("alerts_test.yml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_panels_of_the_dashboard_have_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
