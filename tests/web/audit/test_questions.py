"""Timeline, summary, seals, following and export of the audit log over HTTP. Lists: test_handlers.py."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from pairing_server.audit.seals import format_key, verify_export
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext, system
from pairing_server.web.audit.handlers import ROUTES
from tests.devices import Account, Answer, Site

QUESTIONS = ("timeline", "summary", "seals", "follow", "export")
# The paths of those that take the filters.
FILTERED = {
    r.path for r in ROUTES if r.operation and r.operation.query and "event" in r.operation.query().fields
}


async def ask(site: Site, what: str, reader: Account, **query: object) -> Answer:
    return await site.get(f"/api/audit/{what}?{urlencode(query)}", reader.token)


async def got(site: Site, what: str, reader: Account, **query: object) -> Any:
    answer = await ask(site, what, reader, **query)
    assert answer.status == 200, answer
    return answer.body


async def record(
    site: Site,
    name: str,
    outcome: str = "success",
    count: int = 1,
    *,
    reason: str | None = None,
    **caller: Any,
) -> None:
    audit, who = site.node.audit, RequestContext(utcnow(), **{"kind": "user", **caller})
    target = {"target": caller["subject"]} if name == "auth.login" and "subject" in caller else {}
    async with site.node.database.transaction() as conn:
        made = [audit.event(name, outcome, who.at(utcnow()), reason=reason) for _ in range(count)]
        # A number that no real one has.
        events = [replace(event, attrs={"n": n, **target}) for n, event in enumerate(made)]
        await audit.record(conn, *events)


def test_the_list_above_has_every_question() -> None:
    asked = {route.path for route in ROUTES} - {"/api/audit", "/api/audit/events/{seq}"}
    assert {f"/api/audit/{what}" for what in QUESTIONS} == asked, (
        "QUESTIONS needs each question, and no other"
    )


@pytest.mark.parametrize("what", QUESTIONS)
async def test_only_auditors_and_admins_may_ask(site: Site, what: str) -> None:
    for role, status in (("user", 403), ("auditor", 200), ("admin", 200)):
        assert (await ask(site, what, await site.account(role=role))).status == status, role
    assert (await site.get(f"/api/audit/{what}")).error == "UNAUTHORIZED"
    denied = await site.events("access.denied")
    assert [event["route"] for event in denied] == [f"/api/audit/{what}"]


# An export has an event of its own.
@pytest.mark.parametrize("what", [what for what in QUESTIONS if what != "export"])
async def test_each_question_is_recorded_once_with_what_was_asked(site: Site, what: str) -> None:
    reader = await site.account(role="auditor")
    asked = {"event": "auth.*"} if f"/api/audit/{what}" in FILTERED else {}
    await got(site, what, reader, **asked)
    [event] = await site.events("audit.query")
    assert (event["kind"], event["actor"]) == (what, reader.subject)
    assert asked.items() <= event.items()


# Timeline and summary


async def test_a_timeline_counts_by_outcome_and_keeps_to_the_filter(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, "auth.login", count=3, subject="ada")
    await record(site, "auth.login", "failure", 2, subject="ada")
    await record(site, "ws.connected", count=4)
    found = await got(site, "timeline", reader, event="auth.login", since="2h")
    totals: dict[str, int] = {}
    for bar in found["bars"]:
        for outcome, count in bar["outcomes"].items():
            totals[outcome] = totals.get(outcome, 0) + count
    assert totals == {"success": 3, "failure": 2}
    assert found["step"] == 60
    since, until = (datetime.fromisoformat(found[name]) for name in ("since", "until"))
    for bar in found["bars"]:
        at = datetime.fromisoformat(bar["at"])
        assert since <= at < until
        assert (at - since) % timedelta(seconds=found["step"]) == timedelta()


@pytest.mark.parametrize(
    ("since", "step"), [("2h", 60), ("24h", 900), ("7d", 3600), ("90d", 43_200), ("400d", 604_800)]
)
async def test_the_longer_the_time_the_longer_the_bars(site: Site, since: str, step: int) -> None:
    assert (await got(site, "timeline", await site.account(role="auditor"), since=since))["step"] == step


async def test_the_summary_says_who_failed_and_from_where(site: Site) -> None:
    reader, ada = await site.account(role="auditor"), await site.account("ada")
    await record(site, "auth.login", "failure", 3, address="198.51.100.7", subject=ada.subject)
    await record(site, "auth.login", "failure", 1, address="198.51.100.8")
    await record(site, "auth.login", "denied", 1, address="198.51.100.8")
    await record(site, "pairing.redeem", "failure", 2, address="198.51.100.9", subject=ada.subject)
    found = await got(site, "summary", reader)

    def counted(rows: list[dict[str, Any]]) -> dict[str, int]:
        return {row["value"]: row["count"] for row in rows}

    assert counted(found["logins"]["addresses"]) == {"198.51.100.7": 3, "198.51.100.8": 2}
    assert counted(found["logins"]["users"]) == {ada.subject: 3}
    assert counted(found["redemptions"]["addresses"]) == {"198.51.100.9": 2}
    assert counted(found["redemptions"]["users"]) == {ada.subject: 2}
    assert found["names"] == {ada.subject: "ada"}
    assert found["outcomes"]["failure"] == 6


async def test_the_summary_has_lockouts_and_intruders_but_no_harmless_refusal(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, "auth.lockout", "denied", address="198.51.100.7", subject="mallory")
    await record(site, "session.hijack_attempt", "denied", 2, address="198.51.100.7", subject="mallory")
    await record(site, "channel.denied", "denied", reason="full", subject="eve")
    await record(site, "channel.denied", "denied", reason="ended", subject="ada")
    found = await got(site, "summary", reader)
    assert [event["actor"] for event in found["lockouts"]] == ["mallory"]
    assert {(a["event"], a["reason"], a["actor"], a["count"]) for a in found["intruders"]} == {
        ("session.hijack_attempt", None, "mallory", 2),
        ("channel.denied", "full", "eve", 1),
    }


async def test_the_summary_has_new_addresses_of_known_users(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, "auth.login", subject="ada", address="203.0.113.1")
    await record(site, "auth.login", subject="grace", address="203.0.113.2")
    since = utcnow().isoformat()
    await record(site, "auth.login", subject="ada", address="198.51.100.1")
    await record(site, "ws.connected", subject="ada", address="198.51.100.1")
    await record(site, "auth.login", subject="grace", address="203.0.113.2")
    await record(site, "auth.login", "failure", subject="grace", address="198.51.100.2")
    await record(site, "auth.login", subject="somebody new", address="198.51.100.3")
    found = await got(site, "summary", reader, since=since)
    [new] = found["new_addresses"]
    assert (new["actor"], new["address"], new["count"]) == ("ada", "198.51.100.1", 2)


# Seals


async def test_the_state_of_the_seals_is_that_of_the_log(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, "session.bound", count=5)
    before = await got(site, "seals", reader)
    await site.node.services.audit.sealer.seal(system(utcnow()))
    after = await got(site, "seals", reader)
    assert after["unsealed"]["rows"] < before["unsealed"]["rows"] + 2
    last = after["seals"][0]
    assert last["rows"] >= 5
    assert last["public_key"] == after["public_key"] == format_key(site.node.services.audit.sealer.key.public)
    for newer, older in zip(after["seals"], after["seals"][1:], strict=False):
        assert newer["previous"] == older["digest"]
        assert newer["number"] == older["number"] + 1


async def test_an_event_names_the_seal_that_it_is_in(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, "session.bound")
    [row] = (await site.get("/api/audit?event=session.bound", reader.token)).body["events"]
    assert (await site.get(f"/api/audit/events/{row['seq']}", reader.token)).body["seal"] is None
    made = await site.node.services.audit.sealer.seal(system(utcnow()))
    seal = (await site.get(f"/api/audit/events/{row['seq']}", reader.token)).body["seal"]
    assert (seal["number"], seal["digest"]) in [(each.number, each.digest.hex()) for each in made]


# Following


async def tick(site: Site) -> None:
    await site.node.services.audit.tail.answer_waiting(utcnow())


async def waiting(site: Site, count: int = 1) -> None:
    """Until so many wait. Each turn is a request, which gives the others their chance."""
    while len(site.node.services.audit.tail.waiting) < count:
        await site.get("/healthz")


async def test_a_follower_gets_each_new_event_once(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, "session.bound")
    begun = await got(site, "follow", reader, event="session.bound")
    assert begun["events"] == []
    heard, after = [], begun["next"]
    for _ in range(3):
        await record(site, "session.bound", count=2)
        answer = await got(site, "follow", reader, event="session.bound", after=after)
        heard += [row["seq"] for row in answer["events"]]
        after = answer["next"]
    assert len(heard) == 6 == len(set(heard))
    assert heard == sorted(heard)
    assert len(await site.events("audit.query")) == 1, "one question"


async def test_an_event_that_commits_late_is_not_missed(site: Site) -> None:
    reader, audit = await site.account(role="auditor"), site.node.audit
    after = (await got(site, "follow", reader, event="session.bound"))["next"]
    async with site.node.database.transaction() as slow:
        await audit.record(
            slow,
            replace(
                audit.event("session.bound", "success", RequestContext(utcnow()).at(utcnow())),
                attrs={"n": "slow"},
            ),
        )
        await record(site, "session.bound")
        answer = await got(site, "follow", reader, event="session.bound", after=after)
        assert answer["events"] == [], "what is newer than one that is not final waits for it"
    answer = await got(site, "follow", reader, event="session.bound", after=answer["next"])
    assert [row["attrs"]["n"] for row in answer["events"]] == ["slow", 0]


async def test_a_waiting_follower_is_answered_when_an_event_comes(site: Site) -> None:
    reader = await site.account(role="auditor")
    answer = asyncio.ensure_future(got(site, "follow", reader, event="session.bound", wait=20))
    await waiting(site)
    await tick(site)
    assert not answer.done()
    await record(site, "session.bound")
    await tick(site)
    assert [row["event"] for row in (await answer)["events"]] == ["session.bound"]
    assert not site.node.services.audit.tail.waiting


async def test_a_waiting_follower_gets_an_empty_answer_after_the_wait(site: Site) -> None:
    reader = await site.account(role="auditor")
    answer = asyncio.ensure_future(got(site, "follow", reader, event="session.bound", wait=5))
    await waiting(site)
    await site.node.services.audit.tail.answer_waiting(utcnow() + timedelta(seconds=6))
    found = await answer
    assert found["events"] == []
    await record(site, "session.bound")
    later = await got(site, "follow", reader, event="session.bound", after=found["next"])
    assert len(later["events"]) == 1


async def test_a_follower_without_the_role_gets_no_more_events(site: Site) -> None:
    reader = await site.account(role="auditor")
    answer = asyncio.ensure_future(ask(site, "follow", reader, event="session.bound", wait=20))
    await waiting(site)
    await site.node.services.accounts.set_role(system(utcnow()), reader.username, "user")
    await record(site, "session.bound")
    await tick(site)
    found = await answer
    assert found.body["events"] == []
    again = await ask(site, "follow", reader, event="session.bound", after=found.body["next"])
    assert again.status == 403


async def test_another_question_with_the_same_token_is_recorded(site: Site) -> None:
    reader, other = await site.account(role="auditor"), await site.account(role="auditor")
    after = (await got(site, "follow", reader, event="session.bound"))["next"]
    await got(site, "follow", reader, event="auth.*", after=after)
    await got(site, "follow", other, event="session.bound", after=after)
    await got(site, "follow", reader, event="session.bound", after=after.rpartition(".")[0] + ".invented")
    assert len(await site.events("audit.query")) == 4


async def test_an_unknown_cursor_is_refused(site: Site) -> None:
    reader = await site.account(role="auditor")
    for word in ("", "1", "x.y.z", "1.1", "-1.1.a", f"{10**30}.1.a", "1.1.ä", "1.1." + "a" * 60):
        answer = await ask(site, "follow", reader, after=word)
        assert (answer.status, answer.error) == (422, "VALIDATION_ERROR"), word


# Export


async def test_an_export_has_what_matches_oldest_first_and_the_log_has_its_digest(site: Site) -> None:
    reader = await site.account(role="auditor")
    await record(site, "session.bound", count=2500, address="10.0.0.1")
    await record(site, "ws.connected", count=3)
    answer = await ask(site, "export", reader, format="csv", event="session.bound")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="audit-')
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [json.loads(row["attrs"])["n"] for row in rows] == list(range(2500))
    begun, complete = await site.events("audit.export")
    assert (begun["state"], begun["format"], begun["event"]) == ("begun", "csv", "session.bound")
    assert complete["state"] == "complete"
    assert complete["rows"] == 2500
    assert complete["sha256"] == hashlib.sha256(answer.body).hexdigest()
    assert {begun["actor"], complete["actor"]} == {reader.subject}


@pytest.mark.parametrize("form", ["cef", "ocsf"])
async def test_an_export_for_a_siem_has_one_line_an_event(site: Site, form: str) -> None:
    reader = await site.account(role="auditor")
    await record(site, "session.bound", count=7)
    lines = (await got(site, "export", reader, format=form, event="session.bound")).decode().splitlines()
    assert len(lines) == 7
    begins = {"cef": "CEF:0|pairing-server|", "ocsf": '{"activity_id": '}[form]
    assert all(line.startswith(begins) for line in lines)


@pytest.mark.parametrize("asked", [{}, {"event": "session.bound"}, {"since": "1h", "address": "10.0.0.0/8"}])
async def test_an_export_with_seals_verifies_with_the_public_key_alone(
    site: Site, asked: dict[str, str]
) -> None:
    reader, key = await site.account(role="auditor"), site.node.services.audit.sealer.key.public
    await record(site, "session.bound", count=20, address="10.0.0.1")
    await record(site, "ws.connected", count=5)
    await site.node.services.audit.sealer.seal(system(utcnow()))
    body = await got(site, "export", reader, **asked)
    report = verify_export(io.BytesIO(body), frozenset([key]))
    assert (report.fault, report.rows >= 25) == (None, True)
    names = [
        json.loads(line).get("event") for line in body.decode().splitlines() if line.startswith('{"seq"')
    ]
    assert names.count("session.bound") == 20
    assert names.count("ws.connected") == (0 if asked else 5)
    tampered = body.replace(b'"session.bound"', b'"session.bounD"', 1)
    assert verify_export(io.BytesIO(tampered), frozenset([key])).fault is not None
    _, complete = await site.events("audit.export")
    assert complete["rows"] == len(names)


async def test_an_export_that_is_broken_off_is_recorded_so(site: Site) -> None:
    reader = await site.account(role="auditor")
    for _ in range(8):
        await record(site, "session.bound", count=2000)
    connection = await asyncio.open_connection("127.0.0.1", site.port, limit=2**12)
    request = f"GET /api/audit/export?format=ocsf HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {reader.token}\r\n\r\n"
    connection[1].write(request.encode())
    await connection[0].readline()
    connection[1].transport.abort()
    while len(found := await site.events("audit.export")) < 2:
        pass
    assert [(event["outcome"], event["state"]) for event in found] == [
        ("success", "begun"),
        ("failure", "broken_off"),
    ]


async def test_a_wrong_format_is_refused_before_anything_goes_out(site: Site) -> None:
    reader = await site.account(role="auditor")
    answer = await ask(site, "export", reader, format="xml")
    assert (answer.status, list(answer.body["details"]["fields"])) == (422, ["format"])
    assert await site.events("audit.export") == []
