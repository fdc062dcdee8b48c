"""Nothing that is in the database controls the terminal of the person who reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pairing_server import cli
from tests.cli.commands import Result
from tests.cli.in_process import InProcess, controls
from tests.conftest import execute

pytestmark = pytest.mark.one_node

# ESC c, a title, concealed text (also by its one character), a new line, a direction, a line separator.
HOSTILE = "\x1bcada\x1b]0;x\x07\x1b[8m\x9b8m\r\n\t\u202e\u2066\u2028\x7fx"
SHOWN = r"\x1bcada\x1b]0;x\x07\x1b[8m\x9b8m\r\n\t\u202e\u2066\u2028\x7fx"

ROWS = (
    "INSERT INTO users (id, username, username_key, password_hash, created_at) VALUES (gen_random_uuid(), $1, $1, $1, now())",
    """INSERT INTO logins (subject, login_id, created_at, expires_at, seen_at, address)
    VALUES ($1, $1, now(), now() + interval '1 day', now(), $1)""",
    """INSERT INTO attempts (kind, key, times, level, locked_until, touched_at)
    VALUES ('login_user', $1, '{}', 1, now() + interval '1 day', now())""",
    *(
        f"""INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, reason, node, app_version, actor_subject,
        actor_kind, auth_method, address, attrs)
        VALUES (now(), gen_random_uuid(), {event}, 3, {outcome}, $1, $1, $1, $1, 'user', $1, '192.0.2.1',
                jsonb_build_object($1, $1, 'scope', $1, 'until', $1, 'target', $1))"""
        for event, outcome in (
            ("'auth.login'", "'failure'"),
            ("'auth.lockout'", "'denied'"),
            ("'channel.denied'", "'denied'"),
            ("$1", "'success'"),
        )
    ),
)


@pytest.fixture
def commands(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Of a database whose rows have hostile text wherever they can."""
    literal = "'" + HOSTILE + "'::text"
    execute(database_url, *(statement.replace("$1", literal) for statement in ROWS))
    return InProcess(monkeypatch, tmp_path, DATABASE_URL=database_url)


TEXTS = (
    ("user", "list"),
    ("login", "list"),
    ("lockouts", "list"),
    ("audit", "list"),
    ("audit", "show", "NUMBER"),
    ("audit", "summary"),
    ("audit", "export", "--format", "csv"),
    ("audit", "export", "--format", "cef"),
)
OBJECTS = (
    ("audit", "list", "--json"),
    ("audit", "show", "--json", "NUMBER"),
    ("audit", "summary", "--json"),
    ("audit", "export", "--format", "ocsf"),
)


def run(commands: InProcess, arguments: tuple[str, ...]) -> Result:
    """NUMBER: that of the newest event."""
    newest = json.loads(commands.run("audit", "list", "--json", "--limit", "1").out)
    return commands.run(*(str(newest["seq"]) if each == "NUMBER" else each for each in arguments))


@pytest.mark.parametrize("arguments", TEXTS, ids=" ".join)
def test_what_a_client_chose_is_shown_as_text(commands: InProcess, arguments: tuple[str, ...]) -> None:
    done = run(commands, arguments)
    assert done.status == 0, done.text
    assert controls(done.text) == []
    assert r"\x1bcada" in done.out.replace(r"\\", "\\") or "\\u001bcada" in done.out


def test_a_list_keeps_its_columns_and_lines(commands: InProcess) -> None:
    for name, columns in (("user", 5), ("login", 5), ("lockouts", 4)):
        [line] = commands.run(name, "list").out.splitlines()
        assert len(line.split("\t")) == columns
        assert SHOWN in line.split("\t")


@pytest.mark.parametrize("arguments", OBJECTS, ids=" ".join)
def test_what_a_client_chose_is_the_same_in_json_and_controls_nothing(
    commands: InProcess, arguments: tuple[str, ...]
) -> None:
    done = run(commands, arguments)
    assert done.status == 0, done.text
    assert controls(done.text) == []
    assert HOSTILE in _texts([json.loads(line) for line in done.out.splitlines()])


def _texts(value: object) -> set[str]:
    if isinstance(value, dict):
        return {*value, *_texts(list(value.values()))}
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("user", "disable", HOSTILE.replace("ada", "bob")),
        ("login", "revoke", HOSTILE.replace("ada", "bob")),
        ("lockouts", "lift", "login_user", HOSTILE.replace("ada", "bob")),
        ("keys", "retire", HOSTILE),
        ("audit", "list", "--user", HOSTILE),
        ("backup", HOSTILE + "/x"),
        ("audit", "export", "--output", HOSTILE + "/x"),
        (HOSTILE,),
        ("--" + HOSTILE,),
    ],
)
def test_an_error_shows_what_was_typed_as_text(commands: InProcess, arguments: tuple[str, ...]) -> None:
    done = commands.run(*arguments)
    assert done.status in (1, 2) or done.err == "No events match.\n"
    assert controls(done.text) == []


def test_a_value_of_the_environment_is_shown_as_text(
    commands: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"/srv/{HOSTILE}")
    done = commands.run("config")
    assert controls(done.text) == []
    assert f"PAIRING_DATA_DIR=/srv/{SHOWN}\n" in done.out


def test_commands_print_by_the_functions_that_make_text_plain() -> None:
    """Those that print by themselves have colours, bytes or no text from outside; what they print is tested above."""
    package = Path(cli.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\bclick\.echo\(|\bprint\(|sys\.stdout\.write", path.read_text(encoding="utf-8"))
    }
    assert found <= {"__init__.py", "output.py", "completion.py", "audit/commands.py", "doctor/command.py"}
