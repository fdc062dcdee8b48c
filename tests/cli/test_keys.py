"""keys …, and what a running server makes of it."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from harness.program import environment
from pairing_server.clock import utcnow
from pairing_server.security.keys import SigningKey, generate_key, parse_keys
from pairing_server.security.tokens import Tokens
from tests.cli.commands import Operator
from tests.cli.serving import Serving, serving

OWN = SigningKey("k1", b"s" * 32)


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    """Keys in the data directory."""
    return Operator(database_url, tmp_path, PORT="0", JWT_KEYS="", DATA_DIR="data")


def kept(operator: Operator) -> tuple[SigningKey, ...]:
    return parse_keys((operator.folder / "data" / "jwt-keys").read_text().strip())


def test_a_rotation_puts_a_fresh_key_first_and_keeps_the_others(operator: Operator) -> None:
    told = operator.says("keys", "rotate")
    fresh, first = kept(operator)
    assert told == f"{fresh.kid} signs from now on. The earlier keys still verify.\n"
    lines = [line.split("\t") for line in operator.says("keys", "list").splitlines()]
    assert lines[0] == [fresh.kid, "signs"]
    assert lines[1][:2] == [first.kid, "verifies"]
    assert lines[1][2].startswith("needed until 20")
    listed = operator.says("audit", "list", "--event", "key.rotated")
    assert f"kid={fresh.kid} state=added" in listed
    assert fresh.secret.decode() not in told + listed


def test_a_key_in_use_is_retired_only_when_that_is_said(operator: Operator) -> None:
    operator.says("keys", "rotate")
    fresh, first = kept(operator)
    assert "rotate first" in operator.refuses("keys", "retire", fresh.kid)
    assert "may be in use until 20" in operator.refuses("keys", "retire", first.kid)
    assert "pairing-server keys list" in operator.refuses("keys", "retire", "nobody")
    assert operator.says("keys", "retire", first.kid, "--now") == f"{first.kid} is retired.\n"
    assert kept(operator) == (fresh,)


def test_keys_of_the_settings_are_printed_for_whoever_sets_them(database_url: str, tmp_path: Path) -> None:
    operator = Operator(database_url, tmp_path)
    done = operator.run("keys", "rotate")
    assert done.status == 0
    fresh, own = parse_keys(done.out.strip())
    assert own == OWN
    assert "Nothing has changed yet" in done.err
    assert "Put the line above in its place on every server" in done.err
    assert list(tmp_path.iterdir()) == []
    both = Operator(database_url, tmp_path, JWT_KEYS=done.out.strip())
    assert parse_keys(both.run("keys", "retire", "k1", "--now").out.strip()) == (fresh,)
    assert "k1\tverifies\tneeded until" in both.says("keys", "list")


# A running server


@pytest.fixture
def user(database_url: str, tmp_path: Path) -> str:
    """The subject of an account."""
    operator = Operator(database_url, tmp_path)
    told = operator.says("user", "add", "ada", stdin="correct horse battery")
    return str(UUID(told.rpartition("id ")[2].strip(" .\n")))


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "jwt-keys").write_text(f"k1:{'s' * 32}")
    return folder


@pytest.fixture
def server(database_url: str, tmp_path: Path, credentials: Path) -> Iterator[Serving]:
    environ = environment(DATABASE_URL=database_url, PORT="0")
    with serving({**environ, "CREDENTIALS_DIRECTORY": str(credentials)}, tmp_path) as started:
        yield started


def answer(server: Serving, key: SigningKey, subject: str) -> int:
    """The status of a request with a token that this key has signed."""
    token = Tokens([key]).issue_access(subject, utcnow()).token
    request = urllib.request.Request(
        f"{server.url}/api/pairings", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            assert json.load(found) == {"pairings": []}
            return int(found.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def becomes(server: Serving, key: SigningKey, subject: str, status: int) -> bool:
    """Ask until the answer has that status: the signal may be served after a request that was sent later."""
    return any(answer(server, key, subject) == status for _ in range(1000))


def test_sighup_takes_over_the_keys_of_a_credential_without_a_restart(
    server: Serving, credentials: Path, user: str
) -> None:
    fresh = generate_key()
    assert [answer(server, key, user) for key in (OWN, fresh)] == [200, 401]
    (credentials / "jwt-keys").write_text(f"{fresh.kid}:{fresh.secret.decode()},k1:{'s' * 32}")
    server.process.send_signal(signal.SIGHUP)
    assert becomes(server, fresh, user, 200)
    assert answer(server, OWN, user) == 200
    (credentials / "jwt-keys").write_text(f"{fresh.kid}:{fresh.secret.decode()}")
    server.process.send_signal(signal.SIGHUP)
    assert becomes(server, OWN, user, 401)
    assert answer(server, fresh, user) == 200
    assert "configuration reloaded" in server.stop()


def test_sighup_with_wrong_settings_changes_nothing_and_says_what_is_wrong(
    server: Serving, credentials: Path, user: str
) -> None:
    (credentials / "jwt-keys").write_text("k1:short")
    server.process.send_signal(signal.SIGHUP)
    assert answer(server, OWN, user) == 200
    (credentials / "jwt-keys").write_text(f"k1:{'s' * 32}")
    settings = credentials.parent / ".env"
    settings.write_text("\nPAIRING_LOG_LEVEL: debug\n")
    server.process.send_signal(signal.SIGHUP)
    assert answer(server, OWN, user) == 200
    said = server.stop()
    assert '"message": "configuration refused", "error": "PAIRING_JWT_KEYS: ' in said
    assert '"message": "configuration refused", "error": ".env, line 2: ' in said
    assert "Traceback" not in said
