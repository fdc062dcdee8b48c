"""GET /api/audit: who may read it, filters, pages. What is recorded: test_events.py."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext, system
from tests.devices import Account, Answer, Site

Row = dict[str, Any]


async def ask(site: Site, reader: Account, **query: object) -> Answer:
    return await site.get(f"/api/audit?{urlencode(query)}", reader.token)


async def rows(site: Site, reader: Account, **query: object) -> list[Row]:
    answer = await ask(site, reader, **query)
    assert answer.status == 200, answer
    found: list[Row] = answer.body["events"]
    return found


async def record(
    site: Site, count: int, name: str = "session.bound", address: str = "10.0.0.1", **caller: Any
) -> None:
    """So many events, each with its number in `attrs.n`, which no real one has."""
    audit, who = site.node.audit, RequestContext(utcnow(), address=address, **caller)
    async with site.node.database.transaction() as conn:
        events = [
            replace(audit.event(name, "success", who.at(utcnow())), attrs={"n": n}) for n in range(count)
        ]
        await audit.record(conn, *events)


async def test_auditors_and_admins_read_and_users_do_not(site: Site) -> None:
    for role, status in (("user", 403), ("auditor", 200), ("admin", 200)):
        answer = await ask(site, await site.account(role=role))
        assert answer.status == status, role
    assert (await site.get("/api/audit")).error == "UNAUTHORIZED"


async def test_a_disabled_auditor_reads_no_more(site: Site) -> None:
    auditor = await site.account(role="auditor")
    assert (await ask(site, auditor)).status == 200
    await site.node.services.accounts.set_disabled(system(utcnow()), auditor.username, True)
    assert (await ask(site, auditor)).status == 401


async def test_a_role_that_was_taken_away_counts_at_once(site: Site) -> None:
    auditor = await site.account(role="auditor")
    await site.node.services.accounts.set_role(system(utcnow()), auditor.username, "user")
    assert (await ask(site, auditor)).status == 403


async def test_a_row_says_when_what_who_where_and_how_it_ended(site: Site) -> None:
    reader, account = await site.account(role="auditor"), await site.account()
    before = utcnow()
    made = await site.post("/api/generate-pair-code", {"desktop_session_id": "desktop-1"}, account.token)
    [row] = await rows(site, reader, event="pairing.code_created")
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    assert set(row) == {
        *("seq", "recorded_at", "occurred_at", "event_id", "event", "severity", "outcome", "reason"),
        *("actor", "actor_kind", "address", "request_id", "connection_id", "pairing_id", "node", "count"),
        *("attrs", "auth_method", "app_version"),
    }
    assert row["request_id"] == made.headers["X-Request-ID"]
    assert (row["actor"], row["actor_kind"]) == (account.subject, "user")
    assert (row["address"], row["pairing_id"]) == ("127.0.0.1", pairing["id"])
    assert (row["outcome"], row["severity"], row["count"]) == ("success", 6, 1)
    assert (row["reason"], row["connection_id"]) == (None, None)
    assert row["attrs"]["desktop_session"] == "desktop-1"
    for name in ("occurred_at", "recorded_at"):
        assert row[name].endswith("Z")
        assert before <= datetime.fromisoformat(row[name]) <= utcnow()


async def test_events_come_newest_first(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 5)
    found = await rows(site, reader, event="session.bound")
    assert [row["attrs"]["n"] for row in found] == [4, 3, 2, 1, 0]


async def test_each_filter_narrows_and_all_together_do(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 2, address="203.0.113.7", subject="ada")
    middle = utcnow()
    await record(site, 3, name="ws.connected", address="2001:db8::7", subject="grace")
    for query, count in (
        ({"event": "session.bound"}, 2),
        ({"event": "ws.connected"}, 3),
        ({"actor": "ada"}, 2),
        ({"actor": "grace"}, 3),
        ({"actor": "nobody"}, 0),
        ({"address": "203.0.113.7"}, 2),
        ({"address": "203.0.113.0/24"}, 2),
        ({"address": "2001:db8::/32"}, 3),
        ({"address": "198.51.100.0/24"}, 0),
        ({"event": "ws.connected", "since": middle.isoformat()}, 3),
        ({"event": "session.bound", "since": middle.isoformat()}, 0),
        ({"event": "session.bound", "until": middle.isoformat()}, 2),
        ({"event": "ws.connected", "until": middle.isoformat()}, 0),
        ({"event": "session.bound", "outcome": "success"}, 2),
        ({"event": "session.bound", "outcome": "denied"}, 0),
        ({"pairing": str(uuid4())}, 0),
        ({"event": "session.bound", "actor": "ada", "address": "203.0.113.7", "outcome": "success"}, 2),
        ({"event": "session.bound", "actor": "grace"}, 0),
        ({"event": "session.bound,ws.connected"}, 5),
        ({"event": "session.*,ws.*"}, 5),
        ({"event": "session.*", "actor": "ada"}, 2),
        ({"event": "ws.*", "actor": "ada"}, 0),
        ({"event": "session.*,ws.*", "severity": "notice"}, 0),
        ({"event": "session.*,ws.*", "severity": 6}, 5),
        ({"actor": "ada", "severity": 5}, 0),
        ({"address": "203.0.113.0/24", "event": "session.bound"}, 2),
        ({"address": "203.0.113.0/24", "event": "ws.connected"}, 0),
        ({"connection": str(uuid4())}, 0),
    ):
        assert len(await rows(site, reader, **query)) == count, query


async def test_an_accounts_name_stands_for_its_subject(site: Site) -> None:
    reader, account = await site.account(role="auditor"), await site.account("ada")
    await record(site, 2, subject=account.subject)
    await record(site, 3, subject="ada")  # what another issuer calls somebody
    answer = await ask(site, reader, user="ADA", event="session.bound")
    assert [row["actor"] for row in answer.body["events"]] == [account.subject] * 2
    assert answer.body["names"] == {account.subject: "ada"}
    assert (await ask(site, reader, user="ada", actor="ada")).status == 422
    assert len(await rows(site, reader, actor="ada")) == 3


async def test_a_connections_whole_history_is_found_by_its_id(site: Site) -> None:
    reader, account = await site.account(role="auditor"), await site.account()
    await site.pair(account)
    await site.events("channel.joined")  # everything that waits is written
    [connected, _] = await rows(site, reader, event="ws.connected")
    found = await rows(site, reader, connection=connected["connection_id"])
    assert [row["event"] for row in reversed(found)][:1] == ["ws.connected"]
    assert "channel.joined" in [row["event"] for row in found]
    assert {row["connection_id"] for row in found} == {connected["connection_id"]}


async def test_one_event_is_found_by_its_number(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 3)
    [_, row, _] = await rows(site, reader, event="session.bound")
    answer = await site.get(f"/api/audit/events/{row['seq']}", reader.token)
    assert (answer.status, answer.body["event"]) == (200, row)
    assert (await site.get(f"/api/audit/events/{2**63 - 1}", reader.token)).error == "NOT_FOUND"
    assert (await site.get(f"/api/audit/events/{row['seq']}", (await site.account()).token)).status == 403
    asked = await rows(site, reader, event="audit.query")
    assert [row["attrs"].get("number") for row in asked][:2] == [2**63 - 1, row["seq"]]


async def test_a_time_may_be_said_as_how_long_ago(site: Site) -> None:
    reader = await site.account(role="auditor")
    today = f"{utcnow():%Y-%m-%d}"  # without a zone: UTC
    await record(site, 2)
    assert len(await rows(site, reader, event="session.bound", since="1h")) == 2
    assert await rows(site, reader, event="session.bound", until="1h") == []
    assert len(await rows(site, reader, event="session.bound", since=today)) == 2


async def test_a_pairings_whole_history_is_found_by_its_id(site: Site) -> None:
    reader, account = await site.account(role="auditor"), await site.account()
    await site.pair(account)
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    await site.events("pairing.closed")  # everything that waits is written
    found = [row["event"] for row in await rows(site, reader, pairing=pairing["id"])]
    history = ["pairing.code_created", "pairing.redeem", "channel.joined", "channel.joined", "pairing.closed"]
    assert sorted(found) == sorted(history)


async def test_since_is_included_and_until_is_not(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 1)
    [row] = await rows(site, reader, event="session.bound")
    at = row["recorded_at"]
    assert await rows(site, reader, event="session.bound", since=at) == [row]
    assert await rows(site, reader, event="session.bound", until=at) == []
    local = datetime.fromisoformat(at).astimezone(tz=None).isoformat()
    assert await rows(site, reader, event="session.bound", since=local) == [row]
    later = (datetime.fromisoformat(at) + timedelta(microseconds=1)).isoformat()
    assert await rows(site, reader, event="session.bound", until=later) == [row]


async def test_pages_hold_every_row_once_while_rows_are_added(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 25)  # one transaction: what matters is their order, not their times
    seen: list[int] = []
    query: dict[str, object] = {"event": "session.bound", "limit": 4}
    while True:
        answer = await ask(site, reader, **query)
        seen += [row["attrs"]["n"] for row in answer.body["events"]]
        if answer.body["next"] is None:
            break
        query["after"] = answer.body["next"]
        await record(site, 3)
    assert seen == list(reversed(range(25)))


async def test_a_page_that_is_not_full_is_the_last(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 4)
    assert (await ask(site, reader, event="session.bound", limit=5)).body["next"] is None
    full = await ask(site, reader, event="session.bound", limit=4)
    rest = await ask(site, reader, event="session.bound", limit=4, after=full.body["next"])
    assert rest.body == {"events": [], "next": None, "names": {}}


async def test_a_page_has_100_rows_by_default_and_500_at_most(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 510)
    assert len(await rows(site, reader, event="session.bound")) == 100
    assert len(await rows(site, reader, event="session.bound", limit=500)) == 500
    assert (await ask(site, reader, limit=501)).status == 422


async def test_an_invalid_filter_is_named(site: Site) -> None:
    reader = await site.account(role="auditor")
    huge = base64.urlsafe_b64encode(f"{'9' * 12}.{2**63}".encode()).decode()
    for field, value in (
        ("since", "yesterday"),
        ("since", "24 hours"),
        ("since", "999999d"),
        ("since", "0001-01-01T00:00:00+14:00"),
        ("until", "9999-12-31T23:59:59-14:00"),
        ("pairing", "pair-123456"),
        ("outcome", "ok"),
        ("address", "example.com"),
        ("address", "10.0.0.0/33"),
        ("limit", 0),
        ("limit", -1),
        ("limit", 501),
        ("limit", "many"),
        ("event", ""),
        ("event", "a\0b"),
        ("event", "auth.nothing"),
        ("event", "auth.login,"),
        ("event", "nothing.*"),
        ("event", ",".join(["auth.login"] * 30)),
        ("severity", "8"),
        ("severity", "bad"),
        ("connection", "7"),
        ("user", "nobody of this name"),
        ("actor", "a\0b"),
        ("after", "nonsense"),
        ("after", "ÿ"),
        ("after", huge),
        ("after", base64.urlsafe_b64encode(b"1.-1").decode()),
        ("after", base64.urlsafe_b64encode(b"9" * 40 + b".1").decode()),
    ):
        answer = await ask(site, reader, **{field: value})
        assert (answer.status, answer.error) == (422, "VALIDATION_ERROR"), (field, value)
        assert set(answer.body["details"]["fields"]) == {field}


async def test_sql_in_a_filter_is_plain_text(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 2)
    for value in ("' OR 1=1 --", "%", "session.%", '"; DROP TABLE audit_events; --', ":limit"):
        assert await rows(site, reader, actor=value) == []
        assert (await ask(site, reader, event=value)).status == 422
    assert len(await rows(site, reader, event="session.bound")) == 2


async def test_reading_the_log_is_recorded_with_its_filters(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, 3)
    await rows(site, reader, event="session.bound", address="10.0.0.0/8", outcome="success", limit=2)
    [row] = await rows(site, reader, event="audit.query")
    assert (row["actor"], row["outcome"]) == (reader.subject, "success")
    assert row["attrs"] == {
        "rows": 2,
        "event": "session.bound",
        "address": "10.0.0.0/8",
        "outcome": "success",
    }


async def test_a_refused_reader_is_recorded(site: Site) -> None:
    reader, user = await site.account(role="auditor"), await site.account()
    assert (await ask(site, user)).status == 403
    [row] = await rows(site, reader, event="access.denied")
    assert (row["actor"], row["outcome"]) == (user.subject, "denied")
    assert row["attrs"] == {"route": "/api/audit", "needed": "auditor"}


async def test_rows_cannot_be_changed_or_removed(site: Site) -> None:
    await record(site, 1)
    for statement in (
        "UPDATE audit_events SET outcome = 'denied'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
    ):
        with pytest.raises(Exception, match="audit"):
            async with site.node.database.transaction() as conn:
                await conn.exec_driver_sql(statement)
    reader = await site.account(role="auditor")
    assert len(await rows(site, reader, event="session.bound", since=datetime(2020, 1, 1, tzinfo=UTC))) == 1
