"""audit list: questions to the audit log from the command line."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import click
import pytest

from pairing_server.audit.store.search import Recorded
from pairing_server.cli.audit.table import table
from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext
from pairing_server.store import audit_events as store
from pairing_server.store.audit_events import Event
from tests.audit.logs import audit_log
from tests.cli.commands import NO_DATABASE, Operator

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAIRING = uuid4()


def event(
    name: str,
    outcome: str = "success",
    *,
    actor: str | None = None,
    address: str | None = None,
    pairing: UUID | None = None,
    **attrs: object,
) -> Event:
    caller = RequestContext(utcnow(), subject=actor, address=address, kind="user")
    return audit_log().event(name, outcome, caller.at(NOW), pairing_id=pairing, **attrs)


EVENTS = (
    event("auth.login", actor="alice", address="10.1.2.3"),
    event("auth.login", "failure", actor="bob", address="10.1.9.9"),
    event("pairing.redeem", "failure", actor="alice", address="2001:db8::7", pairing=PAIRING),
    event("pairing.closed", actor="=cmd|' /C calc'!A0", pairing=PAIRING, duration_s='+1, "two"'),
)


def write(url: str, *events: Event) -> None:
    async def add() -> None:
        database = Database(url)
        try:
            async with database.transaction() as conn:
                await store.add(conn, events)
        finally:
            await database.close()

    asyncio.run(add())


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path)


@pytest.fixture
def full(database_url: str, operator: Operator) -> Operator:
    """An operator whose log has four events, an hour apart by what they say, a moment by their recording."""
    write(database_url, *EVENTS)
    return operator


def found(operator: Operator, *options: str) -> list[str]:
    """The events that match, newest first, but for those of the questions themselves."""
    told = operator.says("audit", "list", "--json", *options)
    return [row["event"] for row in map(json.loads, told.splitlines()) if row["event"] != "audit.query"]


def test_events_are_listed_newest_first(full: Operator) -> None:
    assert found(full) == ["pairing.closed", "pairing.redeem", "auth.login", "auth.login"]


def test_each_filter_leaves_what_it_says(full: Operator) -> None:
    assert found(full, "--event", "auth.login") == ["auth.login", "auth.login"]
    assert found(full, "--actor", "alice") == ["pairing.redeem", "auth.login"]
    assert found(full, "--address", "10.1.0.0/16") == ["auth.login", "auth.login"]
    assert found(full, "--address", "10.1.2.3", "--outcome", "success") == ["auth.login"]
    assert found(full, "--address", "2001:db8::1/32") == ["pairing.redeem"]
    assert found(full, "--pairing", str(PAIRING)) == ["pairing.closed", "pairing.redeem"]
    assert found(full, "--outcome", "failure") == ["pairing.redeem", "auth.login"]
    assert found(full, "--event", "auth.*", "--event", "pairing.closed") == [
        *("pairing.closed", "auth.login", "auth.login")
    ]
    assert found(full, "--severity", "warning") == ["pairing.redeem", "auth.login"]
    assert found(full, "--limit", "1") == []  # the newest is the question before


def test_since_is_included_and_until_is_not(full: Operator) -> None:
    rows = [json.loads(row) for row in full.says("audit", "list", "--json").splitlines()]
    place = next(row["recorded_at"] for row in rows if row["event"] == "pairing.redeem")
    assert found(full, "--since", place) == ["pairing.closed", "pairing.redeem"]
    assert found(full, "--until", place) == ["auth.login", "auth.login"]
    assert len(found(full, "--since", "1h")) == 4
    assert len(found(full, "--since", f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")) == 4


def test_a_question_is_recorded_with_its_filters(full: Operator) -> None:
    full.says("audit", "list", "--actor", "alice")
    told = full.says("audit", "list", "--event", "audit.query", "--json")
    [row] = map(json.loads, told.splitlines())
    assert row["actor_kind"] == "admin"
    assert row["attrs"] == {"rows": 2, "actor": "alice"}


def test_json_has_one_whole_event_a_line(full: Operator) -> None:
    told = full.says("audit", "list", "--json", "--actor", "bob")
    assert told.count("\n") == 1
    row = json.loads(told)
    assert (row["outcome"], row["address"], row["severity"], row["node"]) == (
        "failure",
        "10.1.9.9",
        4,
        "node",
    )
    assert row["occurred_at"] == "2026-03-01T12:00:00Z"


def test_show_prints_every_field_of_one_event(full: Operator) -> None:
    row = json.loads(full.says("audit", "list", "--actor", "bob", "--json"))
    told = full.says("audit", "show", str(row["seq"]))
    shown = dict(line.split("  ", 1) for line in told.splitlines())
    assert {name.strip(): value.strip() for name, value in shown.items()}.items() >= {
        "event": "auth.login",
        "severity": "4 warning",
        "outcome": "failure",
        "occurred": "2026-03-01T12:00:00Z",
        "who": "bob",
        "address": "10.1.9.9",
        "node": "node, version 1",
    }.items()
    assert json.loads(full.says("audit", "show", str(row["seq"]), "--json")) == row
    assert "no event with this number" in full.refuses("audit", "show", "999999")


def test_accounts_are_told_by_name(operator: Operator, database_url: str) -> None:
    operator.says("user", "add", "alice", stdin="a long enough password\n")
    subject = json.loads(operator.says("audit", "list", "--event", "account.created", "--json"))["attrs"][
        "target"
    ]
    write(database_url, event("auth.login", actor=subject))
    [_, line] = operator.says("audit", "list", "--user", "alice").splitlines()
    assert line.split()[5] == "alice"
    assert "user: No account has this name." in operator.refuses("audit", "list", "--user", "bob")


def test_the_table_has_one_line_an_event(full: Operator) -> None:
    lines = full.says("audit", "list").splitlines()
    assert len(lines) == 1 + len(EVENTS)
    assert lines[2].split()[3:7] == ["pairing.redeem", "failure", "alice", "2001:db8::7"]
    # Columns begin where their heads do.
    for word, head in (("pairing.redeem", "event"), ("failure", "outcome"), ("alice", "who")):
        assert lines[2].index(word) == lines[0].index(head)
    assert "\x1b" not in "".join(lines)
    assert lines[2].endswith(f"pairing={PAIRING}")


def test_no_match_is_told_apart_from_the_output(operator: Operator) -> None:
    for options in ((), ("--json",)):
        done = operator.run("audit", "list", "--event", "auth.login", *options)
        assert (done.status, done.out, done.err) == (0, "", "No events match.\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--since", "yesterday"), "'yesterday' is no time; give 2026-01-31T12:00:00Z"),
        (("--since", "999999d"), "'999999d' is no time"),
        (("--until", "2026-13-01"), "'2026-13-01' is no time"),
        (("--since", "0001-01-01T00:00+14:00"), "'0001-01-01T00:00+14:00' is no time"),
        (("--address", "10.0.0.300"), "'10.0.0.300' is no address or network"),
        (("--pairing", "123456"), "--pairing: Not a valid UUID"),
        (("--event", "auth.lokout"), "There is no event 'auth.lokout'; did you mean auth.lockout"),
        (("--event", "aut.*"), "There is no event 'aut.*'; did you mean auth.*"),
        (("--outcome", "good"), "--outcome: Must be one of: success, failure, denied, error"),
        (("--severity", "bad"), "Must be 0 to 7, or one of emergency"),
        (("--limit", "0"), "0 is not in the range"),
    ],
)
def test_a_wrong_option_is_explained_and_exits_with_2(
    tmp_path: Path, options: tuple[str, str], told: str
) -> None:
    assert told in Operator(NO_DATABASE, tmp_path).refuses("audit", "list", *options, status=2)


def test_on_a_terminal_no_line_is_longer_than_it() -> None:
    found = [Recorded(number, NOW, event) for number, event in enumerate(EVENTS)]
    for width in (100, 120, 200):
        lines = [click.unstyle(line) for line in table(found, {}, width)]
        assert all(len(line) <= width for line in lines)
    assert lines[3].endswith(f"pairing={PAIRING}"), "where there is room, all is there"
    assert [click.unstyle(line) for line in table(found, {})][3].endswith(f"pairing={PAIRING}")


def test_what_a_client_says_cannot_pass_for_another_attribute() -> None:
    told: dict[str, object] = {"ua": 'Fox reason=fine jti="1"', "token_via": "query"}
    [_, line] = table([Recorded(1, NOW, replace(EVENTS[0], attrs=told))], {})
    assert r"""ua="Fox reason=fine jti=\"1\"" token_via=query""" in click.unstyle(line)
