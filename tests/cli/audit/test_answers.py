"""audit summary, export, follow: answers from the audit log on the command line. Lists: test_commands.py."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.program import program
from pairing_server.audit.formats import MEDIA
from pairing_server.audit.store.summary import Bar
from pairing_server.audit.summary import Timeline
from pairing_server.cli.audit.summary import buckets, sparkline
from tests.cli.audit.test_commands import event, write
from tests.cli.commands import Operator
from tests.cli.in_process import InProcess

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path)


@pytest.fixture
def attacked(database_url: str, operator: Operator) -> Operator:
    """An operator in whose log somebody has guessed."""
    write(
        database_url,
        *[event("auth.login", "failure", address="198.51.100.7") for _ in range(12)],
        *[event("pairing.redeem", "failure", actor="bob", address="198.51.100.8") for _ in range(6)],
        event("auth.lockout", "denied", actor="bob", address="198.51.100.8", scope="redeem_user"),
        event("session.hijack_attempt", "denied", actor="mallory", address="198.51.100.9"),
        event("auth.login", actor="alice", address="10.1.2.3"),
        replace(event("pairing.closed", actor="=cmd|' /C calc'!A0"), attrs={"why": '+1, "two"'}),
    )
    return operator


# Summary


def test_the_summary_names_who_stands_out(attacked: Operator) -> None:
    told = attacked.says("audit", "summary")
    sections = dict(re.findall(r"^(\S[^\n]*)\n((?:  [^\n]*\n?)+)", told, re.MULTILINE))
    assert sections["Failed logins by address"].split()[:3] == ["198.51.100.7", "█" * 24, "12"]
    assert sections["Failed redemptions by user"].split()[::2][:2] == ["bob", "6"]
    assert "redeem_user  bob  198.51.100.8" in sections["Lock-outs"]
    assert "session.hijack_attempt  mallory  198.51.100.9  once" in sections["Hijackers and intruders"]
    assert "Failed logins by user  none" in told
    assert re.search(r"^failure.*  18$", told, re.MULTILINE)
    assert "\x1b" not in told


def test_the_summary_is_there_for_programs_too(attacked: Operator) -> None:
    found = json.loads(attacked.says("audit", "summary", "--json", "--since", "1h"))
    assert found["logins"]["addresses"][0]["count"] == 12
    assert found["timeline"]["step"] == 60


def test_a_summary_of_no_time_at_all_is_explained(operator: Operator) -> None:
    assert "--since: 'soon' is no time" in operator.refuses("audit", "summary", "--since", "soon", status=2)


def test_a_sparkline_draws_what_there_is_and_nothing_as_nothing() -> None:
    assert sparkline([0, 1, 4, 8, 1000]) == " ▁▁▁█"
    assert sparkline([0, 2, 4, 8]) == " ▂▄█"
    assert sparkline([]) == ""


@pytest.mark.parametrize("most", [1, 3, 10, 24, 100])
def test_bars_are_put_together_until_they_fit_and_none_is_lost(most: int) -> None:
    hour = timedelta(hours=1)
    bars = [Bar(NOW + number * hour, {"success": number}) for number in range(24)]
    found, each = buckets(Timeline(NOW, NOW + 24 * hour, hour, bars), most)
    assert len(found) <= most
    assert sum(bar.get("success", 0) for bar in found) == sum(range(24))
    assert each * len(found) >= 24 * hour


# Export


def test_an_export_says_how_much_it_was_and_its_digest(attacked: Operator) -> None:
    done = attacked.run("audit", "export", "--format", "csv", "--event", "auth.login")
    assert done.status == 0
    assert done.err == f"13 events, SHA-256 {hashlib.sha256(done.out.encode()).hexdigest()}\n"
    assert [row["address"] for row in csv.DictReader(io.StringIO(done.out))] == ["198.51.100.7"] * 12 + [
        "10.1.2.3"
    ]


def test_no_cell_of_a_csv_is_one_that_a_spreadsheet_would_run(attacked: Operator) -> None:
    done = attacked.run("audit", "export", "--format", "csv", "--event", "pairing.closed")
    [row] = csv.DictReader(io.StringIO(done.out))
    assert row["actor"] == "'=cmd|' /C calc'!A0"
    assert json.loads(row["attrs"]) == {"why": '+1, "two"'}
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())


def test_an_export_goes_to_a_new_file_only_and_verifies(attacked: Operator, tmp_path: Path) -> None:
    done = attacked.run("audit", "export", "--output", "audit.jsonl")
    assert (done.status, done.out) == (0, "")
    digest = hashlib.sha256((tmp_path / "audit.jsonl").read_bytes()).hexdigest()
    assert done.err.endswith(f"SHA-256 {digest}\n")
    again = attacked.run("audit", "export", "--output", "audit.jsonl")
    assert (again.status, again.err) == (1, "Error: audit.jsonl cannot be written: File exists\n")
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600
    assert hashlib.sha256((tmp_path / "audit.jsonl").read_bytes()).hexdigest() == digest
    key = attacked.says("audit", "key").strip()
    assert "are right" in attacked.says("audit", "verify", "--from-export", "audit.jsonl", "--key", key)
    ended = [
        json.loads(line)
        for line in attacked.says("audit", "list", "--event", "audit.export", "--json").splitlines()
    ]
    assert [row["attrs"]["state"] for row in ended] == ["broken_off", "begun", "complete", "begun"]
    assert ended[2]["attrs"]["sha256"] == digest


@pytest.mark.parametrize("form", [*MEDIA])
def test_a_dash_is_the_standard_output(attacked: Operator, form: str, tmp_path: Path) -> None:
    arguments = ("audit", "export", "--format", form, "--event", "auth.login")
    done = attacked.run(*arguments, "--output", "-")
    assert done.out.count("auth.login") >= 13
    assert done.err.endswith(f"SHA-256 {hashlib.sha256(done.out.encode()).hexdigest()}\n")
    assert [path for path in tmp_path.iterdir() if path.name == "-"] == []


def test_an_export_that_cannot_be_written_whole_leaves_no_file(
    attacked: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = InProcess(monkeypatch, tmp_path)
    for name, value in attacked.environ.items():
        monkeypatch.setenv(name, value)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        done = commands.run("audit", "export", "--output", "audit.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (done.status, done.err) == (1, "Error: File too large\n")
    assert list(tmp_path.glob("audit*")) == []


@pytest.mark.parametrize("form", ["cef", "ocsf"])
def test_an_export_for_a_siem_has_a_line_for_each_event(attacked: Operator, form: str) -> None:
    done = attacked.run("audit", "export", "--format", form, "--outcome", "failure")
    assert len(done.out.splitlines()) == 18
    assert done.err.startswith("18 events")


# Follow


@contextmanager
def following(operator: Operator, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`audit follow`, once it has begun."""
    with subprocess.Popen(
        program("audit", "follow", *options),
        env=operator.environ,
        cwd=operator.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_comes_is_printed_as_it_comes_until_interrupted(operator: Operator, database_url: str) -> None:
    with following(operator, "--event", "auth.*") as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[0] == "number"
        write(database_url, event("ws.connected"), event("auth.login", actor="alice", address="10.1.2.3"))
        assert process.stdout.readline().split()[3:7] == ["auth.login", "success", "alice", "10.1.2.3"]
        write(database_url, event("auth.login", "failure", actor="bob"))
        assert process.stdout.readline().split()[3:6] == ["auth.login", "failure", "bob"]
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    [asked] = operator.says("audit", "list", "--event", "audit.query", "--json").splitlines()
    assert json.loads(asked)["attrs"] == {"kind": "follow", "event": "auth.*"}


def test_what_is_followed_comes_from_now_on(operator: Operator) -> None:
    assert "from now on" in operator.refuses("audit", "follow", "--since", "1h", status=2)
