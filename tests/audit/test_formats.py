"""Events as lines for other programs: one line each, whatever a client has put in, and true to each form."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from pairing_server.audit import formats
from pairing_server.audit.formats import fields, ocsf
from pairing_server.audit.recorder import EVENTS
from pairing_server.audit.store.search import Recorded
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext
from pairing_server.store.audit_events import Event
from pairing_server.text import plain
from pairing_server.web.audit.handlers import AuditEventAnswer
from tests.audit.logs import audit_log

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
PAIRING = UUID(int=7)
NAMES = {"u-1": "ada|=\\"}
NASTY = (
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "＝1",
    'say "so", 1;2',
    "back\\slash",
    "a=b",
    "a|b",
    "two\r\nlines\nand\u2028more",
    "\x1b[31mred\u202e",
    "x" * 10_000,
)


def recorded(name: str = "auth.login", outcome: str = "failure", **changed: Any) -> Recorded:
    """As it stands in the log, however it came there: recording has cleaned nothing."""
    made = {
        "event_id": UUID(int=1),
        "event": name,
        "severity": 4,
        "outcome": outcome,
        "occurred_at": NOW,
        "node": "node-1",
        "app_version": "1.2.3",
        "actor_kind": "user",
        "reason": "password",
        "actor_subject": "u-1",
        "address": "203.0.113.9",
        "pairing_id": PAIRING,
    }
    return Recorded(42, NOW, Event(**{**made, **changed}))


def line(form: str, event: Recorded) -> str:
    text = formats.line(form, event, NAMES)
    assert text.endswith("\n")
    return text[:-1]


# JSON


def test_the_api_and_the_command_line_show_an_event_alike() -> None:
    event = recorded(attrs={"x": 1}, request_id=UUID(int=3))
    assert list(fields.as_json(event).items()) == list(AuditEventAnswer().dump(event).items())


# CSV


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_no_cell_of_a_csv_begins_a_formula_and_each_event_is_one_row(nasty: str) -> None:
    event = recorded(actor_subject=nasty, reason=nasty, attrs={"x": nasty})
    text = formats.head("csv") + formats.line("csv", event, {nasty: nasty})
    [row] = list(csv.DictReader(io.StringIO(text, newline="")))
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝")) for cell in row.values())
    assert row["actor"].removeprefix("'") == plain(nasty) == row["name"].removeprefix("'")
    assert json.loads(row["attrs"]) == {"x": nasty}
    assert list(row) == [*fields.NAMES, "name"]


# CEF


def parsed(text: str) -> tuple[list[str], dict[str, str]]:
    """A CEF line as a SIEM reads it: seven columns, then keys and values."""
    columns = re.split(r"(?<!\\)(?:\\\\)*\|", text, maxsplit=7)
    places = list(re.finditer(r"(?:^|(?<= ))([A-Za-z][A-Za-z0-9]*)(?<!\\)=", columns[7]))
    ends = [place.start() - 1 for place in places[1:]] + [len(columns[7])]
    values = {
        place[1]: re.sub(
            r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), columns[7][place.end() : end]
        )
        for place, end in zip(places, ends, strict=True)
    }
    return columns[:7], values


def test_a_cef_line_has_its_seven_columns_and_its_keys() -> None:
    columns, values = parsed(line("cef", recorded()))
    assert columns == [
        *("CEF:0", "pairing-server", "pairing-server", "1.2.3", "auth.login"),
        *("auth.login failure: password", "5"),
    ]
    assert values["src"] == "203.0.113.9"
    assert values["suid"] == "u-1"
    assert values["suser"] == NAMES["u-1"]
    assert values["rt"] == str(int(NOW.timestamp() * 1000))
    assert (values["cs1Label"], values["cs1"]) == ("pairing", str(PAIRING))
    assert (values["cn1Label"], values["cn1"]) == ("number", "42")
    assert not [key for key in values if key.startswith("cs2")], "there is no connection"


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_cef_escapes_what_would_end_a_value_or_the_line(nasty: str) -> None:
    text = line("cef", recorded(actor_subject=nasty, reason=nasty, app_version=nasty))
    assert len(text.splitlines()) == 1
    columns, values = parsed(text)
    assert columns[4] == "auth.login"
    assert columns[6] == "5"
    ends = re.compile(r"\r\n|[\r\n\u2028]")
    assert values["suid"].replace("\n", "") == plain(ends.sub("", nasty))
    assert values["outcome"] == "failure"


def test_an_ipv6_address_has_its_own_key_in_cef() -> None:
    _, values = parsed(line("cef", recorded(address="2001:db8::7")))
    assert values["c6a2"] == "2001:db8::7"
    assert "src" not in values


@pytest.mark.parametrize(("severity", "cef"), [(0, "10"), (2, "9"), (4, "5"), (6, "1"), (7, "0")])
def test_cef_counts_severity_the_other_way_round(severity: int, cef: str) -> None:
    assert parsed(line("cef", recorded(severity=severity)))[0][6] == cef


# OCSF


@pytest.mark.parametrize("name", sorted(EVENTS))
@pytest.mark.parametrize("address", ["203.0.113.9", None])
def test_each_event_has_a_class_and_what_the_class_requires(name: str, address: str | None) -> None:
    made = json.loads(line("ocsf", recorded(name, address=address)))
    class_uid, activity = made["class_uid"], made["activity_id"]
    assert made["type_uid"] == class_uid * 100 + activity
    assert made["category_uid"] == class_uid // 1000
    assert made["class_name"] == ocsf.CLASSES[class_uid]
    assert (activity == ocsf.OTHER) == ("activity_name" in made)
    assert {"time", "severity_id", "metadata"} <= set(made)
    assert {"product", "version"} <= set(made["metadata"])
    required = {
        **{uid: {"user"} for uid in (3001, 3002, 3003, 3005)},
        3004: {"entity"},
        4001: {"src_endpoint", "dst_endpoint"},
        6002: {"app"},
        6003: {"actor", "api", "src_endpoint"},
    }
    assert required[class_uid] <= set(made)
    assert made["unmapped"]["pairing"] == str(PAIRING)
    if "user" in made:
        assert made["user"].get("uid") or made["user"].get("name")


def test_the_ocsf_types_are_of_events_in_the_inventory() -> None:
    assert set(ocsf.TYPES) <= set(EVENTS)


def test_a_login_is_an_authentication_and_a_lockout_a_locked_account() -> None:
    login = json.loads(line("ocsf", recorded("auth.login", "success", severity=6)))
    assert (login["type_uid"], login["status_id"], login["severity_id"]) == (300201, 1, 1)
    lockout = json.loads(line("ocsf", recorded("auth.lockout", "denied")))
    assert (lockout["type_uid"], lockout["status_id"], lockout["severity_id"]) == (300109, 2, 3)
    assert lockout["status_detail"] == "password"


def test_an_account_that_is_acted_upon_is_the_user_and_who_acts_the_actor() -> None:
    made = json.loads(line("ocsf", recorded("account.disabled", actor_kind="admin", attrs={"target": "u-2"})))
    assert made["user"]["uid"] == "u-2"
    assert made["actor"]["user"] == {"uid": "u-1", "name": NAMES["u-1"], "type_id": 2}


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_an_ocsf_event_is_one_line_of_json(nasty: str) -> None:
    text = line("ocsf", recorded(actor_subject=nasty, attrs={"x": nasty}))
    assert "\n" not in text
    assert "\r" not in text
    assert json.loads(text)["unmapped"]["attrs"] == {"x": nasty}


def test_recording_removes_control_characters() -> None:
    event = audit_log().event("ws.connected", "success", RequestContext(utcnow()).at(NOW), origin=NASTY[-2])
    assert event.attrs == {"origin": "[31mred"}
