"""Health, readiness and metrics, and what is refused while the database is away or the server stops."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from pairing_server.clock import utcnow
from pairing_server.db import last_backup
from pairing_server.db.circuit_breaker import Outage
from pairing_server.db.database import Database
from pairing_server.request_context import system
from tests.devices import Answer, Site

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def retry_after(answer: Answer) -> int:
    assert (answer.status, answer.error) == (503, "UNAVAILABLE"), answer
    return int(answer.headers["Retry-After"])


async def metrics(site: Site) -> dict[str, float]:
    """The samples by name and labels, as they stand in the text."""
    answer = await site.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    lines = answer.body.decode().splitlines()
    return {
        name: float(value) for line in lines if line[0] != "#" for name, _, value in [line.rpartition(" ")]
    }


async def test_a_running_server_is_alive_and_ready(site: Site) -> None:
    alive, ready = await site.get("/healthz"), await site.get("/readyz")
    assert (alive.status, alive.body) == (200, {"status": "ok"})
    assert (ready.status, ready.body) == (200, {"status": "ready"})


async def test_without_its_database_the_server_is_alive_but_not_ready(site: Site) -> None:
    account = await site.account()
    breaker = site.node.database.breaker
    breaker.outage = Outage("unreachable", asyncio.get_running_loop().time())
    assert (await site.get("/healthz")).status == 200
    assert retry_after(await site.get("/readyz")) >= 1
    body = {"desktop_session_id": "desktop-session"}
    assert retry_after(await site.post("/api/generate-pair-code", body, account.token)) >= 1
    assert retry_after(await site.get("/api/pairings", account.token)) >= 1
    breaker.outage = None
    assert (await site.get("/readyz")).status == 200
    assert await site.code(account, "desktop-session")


async def test_a_database_that_lets_nobody_in_is_one_that_is_away(site: Site, database_url: str) -> None:
    account = await site.account()
    name = re.findall(r"/(test_\d+)\?", database_url)[0]
    admin = await asyncpg.connect(database_url.replace(f"/{name}?", "/postgres?"))
    try:
        await admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        await admin.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        assert retry_after(await site.get("/readyz")) >= 1
        assert retry_after(await site.get("/api/pairings", account.token)) >= 1
    finally:
        await admin.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        await admin.close()
    assert (await site.get("/readyz")).status == 200
    assert (await site.get("/api/pairings", account.token)).status == 200


async def test_a_database_that_does_not_exist_is_one_that_is_away(site: Site, database_url: str) -> None:
    name = re.findall(r"/(test_\d+)\?", database_url)[0]
    away = Database(database_url.replace(f"/{name}?", "/no_such_database?"))
    site.node.app.database = away
    assert retry_after(await site.get("/readyz")) >= 1
    await away.close()


async def test_a_stopping_server_takes_nothing_new(site: Site) -> None:
    account = await site.account()
    site.node.app.draining = True
    for path in ("/api/auth/login", "/api/auth/ws-token", "/api/generate-pair-code", "/api/pair-device"):
        assert retry_after(await site.post(path, {}, account.token)) >= 1
    assert retry_after(await site.get("/readyz")) >= 1
    assert (await site.get("/healthz")).status == 200
    # A page asks first; it must learn that it is a 503 and not something it may not read.
    assert (await site.call("OPTIONS", "/api/pair-device")).status == 204


async def test_metrics_count_connections_and_channels(site: Site) -> None:
    before = await metrics(site)
    assert before["pairing_connections"] == 0
    assert before['pairing_channels{members="2"}'] == 0
    account = await site.account()
    desktop, _ = await site.pair(account)
    code = await site.code(account, "desktop-waiting")
    await site.join(account, "desktop", f"pair-{code}", "desktop-waiting")
    found = await metrics(site)
    assert found["pairing_connections"] == 3
    assert found["pairing_connections_opened_total"] == 3
    assert found['pairing_channels{members="2"}'] == 1
    assert found['pairing_channels{members="1"}'] == 1
    desktop.socket.close()
    await desktop.socket.closed()


async def test_metrics_count_what_is_relayed_by_type(site: Site) -> None:
    desktop, mobile = await site.pair()
    for n in range(3):
        mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"n": n}})
    for gain in (75, 75):  # the second changes nothing
        mobile.socket.send({"type": "settings_sync", "channelId": mobile.channel, "settings": {"gain": gain}})
    mobile.socket.send(
        {"type": "audio_chunk", "chunk_id": "c1", "data": "AAAA", "format": "webm", "sample_rate": 16000}
    )
    await mobile.socket.pending()
    await desktop.socket.pending()
    found = await metrics(site)
    assert found['pairing_messages_relayed_total{type="channel_message"}'] == 3
    assert found['pairing_messages_relayed_total{type="settings_sync"}'] == 1
    assert found['pairing_messages_relayed_total{type="audio_chunk"}'] == 1
    assert found["pairing_settings_echoes_total"] == 1
    assert found['pairing_dropped_total{lane="audio"}'] == 0


async def test_metrics_count_pairings_by_outcome_and_refusals_by_reason(site: Site) -> None:
    account, stranger = await site.account(), await site.account()
    code = await site.code(account, "desktop-session")
    assert (await site.redeem(stranger, code, "mobile-stranger")).status == 404
    assert (await site.redeem(account, code, "mobile-session")).status == 200
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    await site.get("/api/pairings")
    socket = await site.open("nonsense")
    await socket.closed()
    found = await metrics(site)
    for outcome, count in (("created", 1), ("redeemed", 1), ("refused", 1), ("expired", 0), ("closed", 1)):
        assert found[f'pairing_pairings_total{{outcome="{outcome}"}}'] == count, outcome
    assert found['pairing_refusals_total{edge="http",reason="INVALID_CODE"}'] == 1
    assert found['pairing_refusals_total{edge="http",reason="UNAUTHORIZED"}'] == 1
    assert found['pairing_refusals_total{edge="ws",reason="INVALID_TOKEN"}'] == 1


async def test_metrics_name_the_release_and_nobody(site: Site) -> None:
    account = await site.account()
    desktop, _ = await site.pair(account)
    answer = await site.get("/metrics")
    text = answer.body.decode()
    assert re.search(rf'pairing_build_info{{[^}}]*version="{site.node.backend.version}"}} 1.0', text)
    for secret in (desktop.channel, desktop.session_id, account.subject, account.username):
        assert secret not in text


async def test_metrics_show_the_way_from_a_code_to_a_pair_and_how_long_it_took(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    await site.redeem(account, code, "mobile-session")
    desktop = await site.join(account, "desktop", f"pair-{code}", "desktop-session")
    assert (await metrics(site))['pairing_pairings_total{outcome="active"}'] == 0
    mobile = await site.join(account, "mobile", f"pair-{code}", "mobile-session")
    found = await metrics(site)
    for outcome in ("created", "redeemed", "active"):
        assert found[f'pairing_pairings_total{{outcome="{outcome}"}}'] == 1, outcome
    assert found["pairing_time_to_pair_seconds_count"] == 1
    assert found['pairing_time_to_pair_seconds_bucket{le="60"}'] == 1
    mobile.socket.close()
    await mobile.socket.closed()
    await desktop.socket.pending()
    await site.join(account, "mobile", f"pair-{code}", "mobile-session")
    assert (await metrics(site))["pairing_time_to_pair_seconds_count"] == 1, "coming back is no new pair"


async def test_metrics_time_one_message_in_64(site: Site) -> None:
    fast = {"message_rate": 10_000, "message_burst": 10_000, "frame_rate": 10_000}
    site.node.reload(replace(site.node.config, **fast))
    desktop, mobile = await site.pair()
    before = (await metrics(site))["pairing_relay_seconds_count"]
    for n in range(130):
        mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"n": n}})
    await mobile.socket.pending()
    await desktop.socket.pending()
    found = await metrics(site)
    assert 1 <= found["pairing_relay_seconds_count"] - before <= 3
    assert found["pairing_relay_seconds_sum"] > 0


async def test_metrics_show_http_database_and_process(site: Site) -> None:
    await site.get("/healthz")
    await site.get("/nothing-here")
    found = await metrics(site)
    assert found['pairing_http_requests_total{method="GET",route="/healthz",status="2xx"}'] >= 1
    assert found['pairing_http_requests_total{method="GET",route="unmatched",status="4xx"}'] == 1
    assert found['pairing_http_seconds_count{route="/healthz"}'] >= 1
    assert found['pairing_database_seconds_count{of="transaction"}'] >= 1
    assert found['pairing_database_seconds_count{of="connection"}'] >= 1
    assert found["pairing_database_up"] == 1
    states = [found[f'pairing_database_connections{{state="{state}"}}'] for state in ("used", "idle", "free")]
    assert sum(states) == 12 and all(count >= 0 for count in states)
    assert found["process_resident_memory_bytes"] > 10_000_000
    assert found["pairing_draining"] == 0


async def test_methods_and_paths_that_clients_make_up_are_no_labels(site: Site) -> None:
    for method, path in (("BREW", "/healthz"), ("GET", "/a-path"), ("GET", "/another-path")):
        await site.call(method, path)
    shown = (await site.get("/metrics")).body.decode()
    assert "BREW" not in shown and "a-path" not in shown
    assert 'method="OTHER",route="/healthz"' in shown


async def test_metrics_show_when_the_log_was_sealed_and_copied_and_the_database_saved(
    own_site: Site, tmp_path: Path
) -> None:
    site, now = own_site, utcnow()
    sealer = site.node.services.audit.sealer
    found = await metrics(site)
    assert "pairing_audit_copied_timestamp_seconds" not in found, "no copies are configured"
    assert found["pairing_audit_sealed_timestamp_seconds"] == found["pairing_backup_timestamp_seconds"] == 0
    away = True

    async def copy(_: str) -> None:
        if away:
            raise OSError("away")

    sealer.copy = copy
    site.node.config = replace(site.node.config, data_dir=tmp_path)
    last_backup.note(tmp_path, now)
    await site.node.audit.flush(system(now))
    for job in site.node.scheduler.jobs:
        if job.name in ("seal audit", "look for a backup"):
            assert await site.node.scheduler.run(job)
    found = await metrics(site)
    assert found["pairing_audit_sealed_timestamp_seconds"] >= now.timestamp()
    assert found["pairing_audit_copied_timestamp_seconds"] == 0
    assert found["pairing_backup_timestamp_seconds"] == pytest.approx(now.timestamp())
    away = False
    await sealer.seal(system(utcnow()))
    assert (await metrics(site))["pairing_audit_copied_timestamp_seconds"] >= now.timestamp()


async def test_log_lines_about_a_connection_have_its_ids(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pairing_server.web")
    desktop, mobile = await site.pair()
    [channel] = site.node.hub.channels.values()
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    opened, closed = ([r for r in caplog.records if word in r.getMessage()] for word in ("opened", "closed"))
    ids = {record.__dict__["connection_id"] for record in opened}
    assert len(ids) == 2 and all(record.__dict__["request_id"] for record in opened)
    assert closed[0].__dict__["connection_id"] in ids
    assert closed[0].__dict__["pairing_id"] == str(channel.pairing_id)
