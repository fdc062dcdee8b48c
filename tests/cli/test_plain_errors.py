"""Whatever is given to a command, and whatever the database says: a plain message, and no traceback."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from sqlalchemy.engine import make_url

from harness.program import environment, program
from pairing_server.audit.seals import SealKey, format_key
from pairing_server.cli import cli
from tests.cli.commands import NO_DATABASE, Operator
from tests.cli.in_process import InProcess, controls
from tests.conftest import execute
from tests.longer import count

HOSTILE = (
    *("", "-1", "9" * 30, "9" * 5000 + "h", "a\udcffb", "\x1b]0;x\x07\r\n\t", "\x9b8m", "\u202e", "x" * 5000),
    *("%s%n", "[", "a|b", "::", "2026-13-45", "http://[", f"https://{'x' * 300}.example", "٣", "\U0010ffff"),
)
FILES = ("binary", "folder", "deep", "lines", "/dev/null", "missing/x")
PUBLIC_KEY = format_key(SealKey.parse("ed25519:" + base64.b64encode(b"k" * 32).decode()).public)
# These run until they are ended, or ask another machine.
ENDLESS = {("serve",), ("audit", "follow")}
WITHOUT_DATABASE = {("backup",), ("restore",), ("doctor",)}

# Of what could be given to a command, one in so many is.
SHARE = count(4, 1)


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = {path: command for path, command in leaves(cli) if path not in ENDLESS}


def uses(path: tuple[str, ...], command: click.Command) -> Iterator[list[str]]:
    """Command lines that have a hostile value for each option and argument in turn."""
    right = [_right(each) for each in command.params if isinstance(each, click.Argument) and each.required]
    more = ["--key", PUBLIC_KEY] if path == ("audit", "verify") else []
    for parameter in command.params:
        values = (*HOSTILE, *FILES) if isinstance(parameter.type, click.Path) else HOSTILE
        if isinstance(parameter, click.Option):
            if not parameter.is_flag:
                yield from ([*path, f"{parameter.opts[-1]}={value}", *more, *right] for value in values)
        else:
            place = [each for each in command.params if isinstance(each, click.Argument)].index(parameter)
            for value in values:
                yield [*path, *more, "--", *right[:place], value, *right[place + 1 :]]


def _right(argument: click.Argument) -> str:
    return next(iter(argument.type.choices)) if isinstance(argument.type, click.Choice) else "1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "deep").write_text("[" * 100_000 + "\n")
    (tmp_path / "lines").write_text('{"a":1}\n"x"\n12\nnull\n{"seal":{}}\n')
    return tmp_path


@pytest.mark.one_node
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_whatever_is_given_to_a_command_ends_in_plain_words(
    path: tuple[str, ...], database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = NO_DATABASE if path in WITHOUT_DATABASE else database_url
    commands = InProcess(monkeypatch, folder, DATABASE_URL=url, DATA_DIR="kept")
    # Another part of them for each command, so that every value is given to some.
    part = list(COMMANDS).index(path) % SHARE
    for arguments in list(uses(path, COMMANDS[path]))[part::SHARE]:
        done = commands.run(*arguments)
        # 130: a question to which standard input has no answer.
        assert done.status in (0, 1, 2, 130), arguments
        assert "Traceback" not in done.text, arguments
        assert controls(done.text) == [], arguments
        # doctor reports on standard output what it finds.
        assert done.status in (0, 130) or "Error: " in done.err or path == ("doctor",), arguments


def test_an_argument_that_is_no_text_is_named_as_it_is_typed(tmp_path: Path) -> None:
    told = Operator(NO_DATABASE, tmp_path).refuses("user", "disable", "zo\udceb", status=2)
    assert "The argument zo\\udceb is not text in UTF-8." in told


@pytest.mark.parametrize("number", ["9223372036854775808", "99999999999999999999999"])
def test_the_number_of_an_event_that_cannot_be_one_is_a_wrong_use(tmp_path: Path, number: str) -> None:
    assert "is not in the range" in Operator(NO_DATABASE, tmp_path).refuses("audit", "show", number, status=2)


def test_copies_of_seals_that_are_no_text_are_named(database_url: str, folder: Path) -> None:
    told = Operator(database_url, folder).refuses("audit", "verify", "--copies", "binary")
    assert "binary is no file of copies: it is not text in UTF-8" in told


@pytest.mark.parametrize("host", ["a..b", "x" * 300, f"{'x' * 64}.example", "é..b"])
@pytest.mark.parametrize(
    ("setting", "form"),
    [
        ("HOST", "{}"),
        ("PUBLIC_URL", "https://{}/"),
        ("AUDIT_SEAL_COPY", "https://{}/"),
        ("DATABASE_URL", "postgresql://ada@{}/pairing"),
        ("DATABASE_URL", "postgresql://ada@127.0.0.1:1,{}:2/pairing"),
        ("MIGRATE_DATABASE_URL", "postgresql:///pairing?host={}"),
    ],
)
def test_a_host_that_cannot_be_looked_up_is_a_fault_of_its_setting(
    host: str, setting: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = InProcess(monkeypatch, tmp_path, **{setting: form.format(host)}).run("user", "list")
    assert (done.status, done.out) == (1, "")
    assert f"PAIRING_{setting}: " in done.err


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_standard_stream_that_is_closed_is_nothing_to_read_or_write(number: int, tmp_path: Path) -> None:
    redirected = f'exec {number}{"<" if number == 0 else ">"}&- && exec "$0" "$@"'
    command = ["sh", "-c", redirected, *program(), "user", "add", "ada"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(DATABASE_URL=NO_DATABASE),
        input="",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "" if number == 2 else "Error: Give the password on standard input, or run this on a terminal.\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        "STATE_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "PAIRING_SETTINGS_FILE",
        "COLUMNS",
        "HOME",
    ],
)
def test_no_variable_of_the_environment_ends_a_command_with_a_traceback(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = InProcess(monkeypatch, folder)
    for value in (*HOSTILE, *FILES):
        monkeypatch.setenv(name, value)
        done = commands.run("config")
        assert done.status in (0, 1), value
        assert controls(done.text) == [], value


# What the database refuses

CHANGES = (
    ("user", "list"),
    ("user", "disable", "ada"),
    ("user", "set-role", "ada", "admin"),
    ("user", "add", "ada"),
    ("token", "issue", "ada"),
    ("login", "list"),
    ("login", "revoke", "--user", "ada"),
    ("login", "revoke", "l1"),
    ("lockouts", "list"),
    ("lockouts", "lift", "login_user", "ada"),
    ("audit", "list"),
    ("audit", "show", "1"),
    ("audit", "summary"),
    ("audit", "export"),
    ("audit", "verify"),
    ("audit", "rebase"),
    ("migrate",),
)


@pytest.fixture
def role(database_url: str) -> Iterator[str]:
    """The URL of a role that may see which schema there is, and no more."""
    execute(
        database_url,
        "CREATE ROLE nothing_granted LOGIN",
        "GRANT SELECT ON alembic_version TO nothing_granted",
    )
    yield make_url(database_url).set(username="nothing_granted").render_as_string(hide_password=False)
    execute(database_url, "DROP OWNED BY nothing_granted", "DROP ROLE nothing_granted")


@pytest.mark.one_node
def test_a_right_that_the_role_lacks_is_named_with_what_grants_it(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = InProcess(monkeypatch, tmp_path, DATABASE_URL=role)
    for arguments in CHANGES:
        done = commands.run(*arguments)
        if arguments == ("migrate",):
            assert done.status == 0, done.text
            continue
        assert (done.status, done.out) == (1, ""), arguments
        assert "permission denied for" in done.err, arguments
        assert "PAIRING_MIGRATE_DATABASE_URL" in done.err, arguments
        assert "Traceback" not in done.err
        assert "SELECT" not in done.err


@pytest.mark.one_node
@pytest.mark.parametrize("state", ["42P05", "26000", "0A000", "XX000", "22021", "23505", "53100"])
def test_any_other_error_of_the_database_is_a_plain_message(
    state: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        database_url,
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'refused for a test' USING ERRCODE = '{state}'; END $$""",
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON users EXECUTE FUNCTION refuse()",
    )
    try:
        done = InProcess(monkeypatch, tmp_path, DATABASE_URL=database_url).run("user", "add", "ada")
    finally:
        execute(database_url, "DROP FUNCTION refuse() CASCADE")
    assert (done.status, done.out) == (1, "")
    # That the disk is full is logged before.
    assert "Error: The database" in done.err
    assert "argon2" not in done.err
