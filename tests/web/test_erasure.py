"""Erasing a user: what goes, what stays, and who may do it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from pairing_server.clock import utcnow
from pairing_server.db.tables import metadata
from pairing_server.request_context import system
from pairing_server.services.erasure import RECENT
from tests.devices import Account, Site

pytestmark = pytest.mark.one_node

# Tables that may keep the id of a user who was erased: docs/operations.md says why.
KEPT = {"audit_events", "revocations"}


async def tables_that_name(site: Site, *words: str) -> set[str]:
    """The tables with one of these words anywhere in a row."""
    found = set()
    async with site.node.database.transaction() as conn:
        for table in metadata.sorted_tables:
            rows = (await conn.execute(text(f"SELECT to_jsonb(t) FROM {table.name} AS t"))).scalars()
            if any(word in json.dumps(row) for row in rows for word in words):
                found.add(table.name)
    return found


async def erased(site: Site, account: Account) -> int:
    answer = await site.call("DELETE", "/api/account", None, account.token)
    assert answer.status == 200, answer
    ended: int = answer.body["pairings"]
    return ended


async def test_a_user_who_erases_the_own_account_leaves_an_id_in_the_audit_log_only(site: Site) -> None:
    account = await site.account("ada-to-be-erased")
    desktop, mobile = await site.pair(account)
    mobile.socket.send({"type": "settings_sync", "channelId": mobile.channel, "settings": {"gain": 75}})
    await desktop.socket.expect("settings_sync")
    await site.node.backend.settings.keep()
    await site.post("/api/pair-device", {"code": "000000", "mobile_session_id": "m-1"}, account.token)
    assert {"users", "sessions", "pairings", "logins", "attempts"} <= await tables_that_name(
        site, account.subject, account.username
    )
    assert await erased(site, account) == 1
    for device in (desktop, mobile):
        assert await device.socket.closed() == 4401
    await site.node.audit.flush(system(utcnow()))
    assert await tables_that_name(site, account.subject) == KEPT
    assert await tables_that_name(site, account.username) == set()
    assert (await site.get("/api/pairings", account.token)).error == "INVALID_TOKEN"
    [event] = [e for e in await site.events("account.deleted") if e["target"] == account.subject]
    assert (event["actor"], event["pairings"]) == (account.subject, 1)


async def test_of_a_pairing_with_another_user_the_others_account_stays(site: Site) -> None:
    one, other = await site.account(), await site.account()
    desktop, mobile = await site.pair(other)
    await erased(site, one)
    assert (await site.get("/api/pairings", other.token)).status == 200
    desktop.socket.send({"type": "channel_message", "channelId": desktop.channel, "payload": {"n": 1}})
    assert (await mobile.socket.expect("channel_message"))["payload"] == {"n": 1}


async def test_a_name_is_free_once_its_account_is_erased_and_is_another_account_then(site: Site) -> None:
    first = await site.account("grace")
    await erased(site, first)
    second = await site.account("grace")
    assert second.subject != first.subject
    assert (await site.get("/api/pairings", first.token)).error == "INVALID_TOKEN"


async def test_a_login_that_is_old_may_not_erase(site: Site) -> None:
    account = await site.account()
    old = site.node.app.tokens.issue_access(account.subject, utcnow() - RECENT - timedelta(seconds=1))
    answer = await site.call("DELETE", "/api/account", None, old.token)
    assert (answer.status, answer.error) == (403, "FORBIDDEN")
    assert "Log in again" in answer.body["message"]
    assert (await site.get("/api/pairings", account.token)).status == 200


async def test_a_connection_of_an_account_that_is_gone_is_closed_on_every_server(site: Site) -> None:
    """Also where the revocation was not seen: the account is looked up by itself."""
    account = await site.account()
    desktop, _ = await site.pair(account)
    async with site.node.database.transaction() as conn:
        await conn.execute(
            metadata.tables["users"].delete().where(text("id = CAST(:id AS uuid)")), {"id": account.subject}
        )
    assert await site.node.backend.account_status.close_disabled(utcnow()) == 2
    assert await desktop.socket.closed() == 4401


async def test_the_trial_of_doctor_is_marked_and_others_cannot_mark_an_attack(site: Site) -> None:
    account = await site.account()
    _, mobile = await site.pair(account)
    intruder = await site.connect(account, "mobile")
    intruder.send(
        {
            "type": "identify",
            "device_type": "mobile",
            "session_id": "intruder",
            "user_agent": "pairing-server doctor",
        }
    )
    await intruder.expect("identified")
    intruder.send({"type": "join_channel", "channel": mobile.channel})
    assert (await intruder.error())["code"] == "CHANNEL_FULL"
    [denied] = await site.events("channel.denied")
    assert "trial" not in denied
