"""A configuration that is reloaded: which settings take effect, which need a restart, and that no device is disconnected."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_network

import pytest

from pairing_server.config import SETTINGS
from pairing_server.security.limits import Rate, SlidingWindow
from pairing_server.security.origins import Origins
from tests.config.test_configuration import TEXTS
from tests.devices import Site

APP = "https://app.example"


async def test_a_new_origin_is_allowed_and_an_old_one_is_not_while_no_device_is_disconnected(
    site: Site,
) -> None:
    site.node.reload(replace(site.node.config, allowed_origins=Origins.parse(["https://old.example"])))
    desktop, mobile = await site.pair()
    assert (await site.get("/healthz", Origin=APP)).status == 403
    site.node.reload(replace(site.node.config, allowed_origins=Origins.parse([APP])))
    assert (await site.get("/healthz", Origin=APP)).status == 200
    assert (await site.get("/healthz", Origin="https://old.example")).status == 403
    mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"n": 1}})
    assert (await desktop.socket.expect("channel_message"))["payload"] == {"n": 1}


async def test_limits_of_accounts_and_addresses_change_at_once(site: Site) -> None:
    account = await site.account()
    await site.code(account, "desktop-session-1")
    site.node.reload(replace(site.node.config, code_rate=Rate(1, 300)))
    refused = await site.post("/api/generate-pair-code", {"desktop_session_id": "desktop-2"}, account.token)
    assert refused.error == "RATE_LIMITED", "what was counted before counts"
    site.node.reload(replace(site.node.config, code_rate=Rate(100, 300), registration="closed"))
    await site.code(account, "desktop-session-2")
    body = {"username": "somebody", "password": "a long enough password"}
    assert (await site.post("/api/auth/register", body)).error == "FORBIDDEN"


async def test_a_connection_keeps_its_limits_and_the_next_has_the_new_ones(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    site.node.reload(replace(site.node.config, message_rate=1, message_burst=1, connections_per_user=2))
    for n in range(5):
        mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"n": n}})
    await mobile.socket.pending()
    assert [m["payload"]["n"] for m in await desktop.socket.pending()] == list(range(5))
    third = await site.open(await site.ws_token(account, "desktop"))
    assert (await third.error())["details"]["limit"] == "connections_per_user"


async def test_a_change_is_in_the_audit_log_and_a_setting_that_needs_a_restart_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = site.node.config
    site.node.reload(replace(before, message_rate=7, port=1, log_format="text"))
    [changed] = await site.events("config.changed")
    assert changed["setting"] == "PAIRING_MESSAGE_RATE"
    assert (changed["old"], changed["new"]) == (str(before.message_rate), "7")
    logged = {record.message: record.__dict__.get("changed") for record in caplog.records}
    assert logged["configuration reloaded"] == "PAIRING_MESSAGE_RATE"
    assert logged["configuration needs a restart"] == "PAIRING_PORT,PAIRING_LOG_FORMAT"


async def test_each_reloadable_setting_has_an_effect_at_once(site: Site) -> None:
    node, root = site.node, logging.getLogger()
    codes = node.backend.code_limits

    def in_effect() -> str:
        app, backend = node.app, node.backend
        rates = (app.handshake_failures.rate, codes._by_user.rate, codes._by_address.rate)
        access = (app.origins, app.trusted, app.http_limits, node.services.signing_keys.keyring.keys)
        return str(
            (
                rates,
                access,
                backend.rules,
                backend.policies,
                [window.rate for window in backend.rates._windows.values()],
                backend.hub.context.limits,
                root.level,
            )
        )

    level, without_effect = root.level, []
    root.setLevel(logging.ERROR)
    try:
        for setting in SETTINGS:
            before = in_effect()
            if setting.reloadable:
                node.reload(replace(node.config, **{setting.name: TEXTS[setting.name][1]}))
                without_effect += [setting.name] if in_effect() == before else []
    finally:
        root.setLevel(level)
    assert without_effect == [], "server/reload.py does not pass it on, or in_effect() does not read it"


async def test_the_log_level_changes(site: Site) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        site.node.reload(replace(site.node.config, log_level="debug"))
        assert root.level == logging.DEBUG
        site.node.reload(replace(site.node.config, log_level="error"))
        assert root.level == logging.ERROR
    finally:
        root.setLevel(before)


async def test_a_proxy_is_believed_once_it_is_trusted(site: Site) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9"}
    account = await site.account()
    desktop = {"desktop_session_id": "desktop-session-1"}
    await site.call("POST", "/api/generate-pair-code", desktop, account.token, forwarded)
    site.node.reload(replace(site.node.config, trusted_proxies=(ip_network("127.0.0.1"),)))
    site.node.reload(replace(site.node.config, code_rate_address=Rate(1, 300)))
    first = await site.call("POST", "/api/generate-pair-code", desktop, account.token, forwarded)
    assert first.status == 200, "the first from there"
    again = await site.call("POST", "/api/generate-pair-code", desktop, account.token, forwarded)
    assert again.error == "RATE_LIMITED"


def test_a_window_counts_under_its_new_rate_what_it_counted_under_the_old() -> None:
    window = SlidingWindow(Rate(2, 10))
    window.charge("a", 0)
    window.charge("a", 1)
    assert window.wait("a", 1) == 9
    window.change(Rate(4, 10))
    assert window.wait("a", 1) == 0
    window.charge("a", 2)
    window.charge("a", 3)
    assert window.wait("a", 3) == 7
    window.change(Rate(1, 5))
    assert window.wait("a", 3) == 5
