"""Passwords that change: a file or a command is asked for each new connection."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from pairing_server.db.connection_parameters import Place, read, with_parameters
from pairing_server.db.connection_password import PasswordSource

PLACE: Place = ("h", 6000)


def source(timeout: float = 5, **values: str) -> PasswordSource:
    return PasswordSource(read(with_parameters("postgresql://bob@h:6000/name", values), {}), timeout)


async def ask(passwords: PasswordSource, place: Place = PLACE) -> str:
    found = passwords.of(place)
    assert callable(found)
    answer = found()
    return answer if isinstance(answer, str) else await answer


async def test_a_file_is_read_anew_for_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    passwords = source(password_file=str(file))
    for password in ("first", " second with spaces "):
        file.write_text(f"{password}\n")
        assert await ask(passwords) == password


async def test_a_file_that_is_not_there_is_an_error_of_the_connection(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="cannot be read: No such file"):
        await ask(source(password_file=str(tmp_path / "none")))
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConnectionError, match="not text"):
        await ask(source(password_file=str(tmp_path / "binary")))


async def test_a_command_is_run_anew_and_knows_the_connection(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    passwords = source(
        password_command=f"echo run >> {runs}; echo $PGUSER@$PGHOST:$PGPORT/$PGDATABASE; echo second line"
    )
    for number in (1, 2):
        assert await ask(passwords) == "bob@h:6000/name"
        assert runs.read_text() == "run\n" * number


async def test_connections_that_open_at_once_share_one_run_of_the_command(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    passwords = source(password_command=f"echo run >> {runs}; cat {gate}")
    waiting = [asyncio.ensure_future(ask(passwords)) for _ in range(5)]
    await asyncio.to_thread(gate.write_text, "open\n")
    assert await asyncio.gather(*waiting) == ["open"] * 5
    assert runs.read_text() == "run\n"


@pytest.mark.parametrize("command", ["echo secret; exit 3", "true", "no-such-program", "echo secret >&2"])
async def test_a_command_that_gives_none_is_an_error_without_what_it_printed(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConnectionError, match="PAIRING_DATABASE_PASSWORD_COMMAND gave no password") as raised:
        await ask(source(password_command=command))
    assert "secret" not in f"{raised.value}{capfd.readouterr()}"


async def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TimeoutError):
        await ask(source(0.2, password_command=f"echo $$ > {pid}; exec sleep 60"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_password_of_the_url_wins_over_the_environment_and_a_source_over_both() -> None:
    environ = {"PGPASSWORD": "of the environment"}
    assert PasswordSource(read("postgresql://u@h/", environ), 1).of(PLACE) == "of the environment"
    assert PasswordSource(read("postgresql://u:of-url@h/", environ), 1).of(PLACE) == "of-url"
    assert callable(PasswordSource(read("postgresql://u@h/?password_command=x", environ), 1).of(PLACE))
    assert PasswordSource(read("postgresql://u@h/", {}), 1).of(PLACE) is None
