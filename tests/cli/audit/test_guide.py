"""The reviewer's guide of docs/audit.md: each command that answers one of its questions runs, and answers it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from uuid import UUID

import pytest

from harness.program import ROOT
from tests.cli.audit.test_commands import event, write
from tests.cli.commands import Operator

GUIDE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8").partition("\n## How it is kept")[0]
ROWS = re.findall(r"^\| (\d+) \| ([^|]+) \| `pairing-server ([^`]+)` \|", GUIDE, re.MULTILINE)
PAIRING = UUID("0f6f0c86-6f6a-4d2e-b0a5-3c1f8b8f9a52")
# What each answer must have in it; nothing else here is of that address.
ANSWERS = {
    1: "198.51.100.1",
    2: "198.51.100.1",
    3: "until=2026-11-25T21:00:00Z",
    4: "session.hijack_attempt",
    5: "198.51.100.5",
    6: "198.51.100.6",
    7: "203.0.113.7",
    8: "account.created",
    9: "audit.export",
    10: "are right",
}


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    """An operator in whose log there is something to find for each question."""
    operator = Operator(database_url, tmp_path)
    operator.says("user", "add", "alice", stdin="a long enough password\n")
    alice = operator.says("user", "list").split()[-1]
    operator.run("audit", "export", "--format", "csv")
    write(
        database_url,
        event("auth.login", "failure", address="198.51.100.1"),
        event("auth.lockout", "denied", address="198.51.100.3", until="2026-11-25T21:00:00Z"),
        event("session.hijack_attempt", "denied", address="198.51.100.4"),
        event("auth.login", actor=alice, address="198.51.100.5"),
        event("pairing.closed", address="198.51.100.6", pairing=PAIRING),
        event("ws.connected", address="203.0.113.7"),
    )
    return operator


def test_the_guide_has_ten_questions() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 11))


@pytest.mark.parametrize(("number", "question", "command"), ROWS, ids=[number for number, *_ in ROWS])
def test_a_question_is_answered_by_its_command(
    operator: Operator, number: str, question: str, command: str
) -> None:
    assert question.endswith("?")
    assert ANSWERS[int(number)] in operator.says(*shlex.split(command))


def test_every_command_that_the_guide_names_exists(operator: Operator) -> None:
    for command in set(re.findall(r"`pairing-server (audit \w+)", GUIDE)):
        assert "Usage:" in operator.says(*command.split(), "--help")
