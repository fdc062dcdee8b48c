"""The doctor as people run it: a command, its output, its exit status."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from harness.program import environment
from pairing_server.cli import cli
from pairing_server.client import PairingClient
from tests.cli.commands import command

STEPS = 27
PASSWORD = "correct horse battery"


Doctor = Callable[..., tuple[int | None, str]]


@pytest.fixture(scope="session")
def doctor(tmp_path_factory: pytest.TempPathFactory) -> Doctor:
    """Runs the command: doctor("--url", …) gives its status and what it printed."""
    folder = tmp_path_factory.mktemp("doctor")

    def run(*arguments: str, stdin: str = "", **settings: str) -> tuple[int | None, str]:
        done = command(
            "doctor", *arguments, environ={**environment(), **settings}, folder=folder, stdin=stdin
        )
        assert "Traceback" not in done.text, done.text
        return done.status, done.text

    return run


@pytest.fixture(scope="session")
def account(server_url: str) -> str:
    """An account's name on the server; its password is PASSWORD."""
    name = "alice"

    async def register() -> None:
        with PairingClient(server_url, "desktop") as client:
            await client.register(name, PASSWORD)

    with asyncio.Runner() as runner:
        runner.run(register())
    return name


@pytest.fixture(scope="session")
def visit(doctor: Doctor, server_url: str, account: str) -> tuple[int | None, str]:
    """What came of one run with that account."""
    return doctor("--url", server_url, "--username", account, "--password", PASSWORD)


@contextmanager
def stranger(status: int, body: bytes) -> Iterator[str]:
    """The URL of an HTTP server that is no pairing server: it always answers that."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_good_server_passes_every_step(doctor: Doctor, server_url: str) -> None:
    status, output = doctor("--url", server_url)
    assert status == 0, output
    assert len(re.findall(r"^  ✓  .{30,} +\d+\.\d ms$", output, re.MULTILINE)) == STEPS
    assert f"All right: {STEPS} steps in" in output
    assert "could not be deleted" not in output


def test_an_account_can_be_given(visit: tuple[int | None, str], account: str) -> None:
    status, output = visit
    assert status == 0, output
    assert f"log in as {account}" in output
    assert "throw-away" not in output


def test_the_password_can_come_from_standard_input(doctor: Doctor, server_url: str, account: str) -> None:
    status, output = doctor(
        "--url", server_url, "--username", account, "--password", "-", stdin=f"{PASSWORD}\n"
    )
    assert status == 0, output


def test_the_url_is_that_of_the_settings(doctor: Doctor, server_url: str) -> None:
    status, output = doctor(PAIRING_PUBLIC_URL=server_url)
    assert status == 0, output


def test_no_token_password_or_code_is_shown(visit: tuple[int | None, str]) -> None:
    _, output = visit
    assert "eyJ" not in output
    assert PASSWORD not in output
    assert not re.search(r"(?<!\d)\d{6}(?!\d)", output)


def test_the_reasons_of_a_server_that_is_not_ready_are_told(doctor: Doctor) -> None:
    refusal = {
        "success": False,
        "error": "UNAVAILABLE",
        "message": "The database is read-only.",
        "details": {"reasons": ["database_read_only"]},
    }
    with stranger(503, json.dumps(refusal).encode()) as url:
        status, output = doctor("--url", url)
    assert status == 1
    assert "HTTP 503 UNAVAILABLE: The database is read-only. (database_read_only)" in output


async def test_the_doctor_leaves_no_pairing_behind(
    visit: tuple[int | None, str], server_url: str, account: str
) -> None:
    with PairingClient(server_url, "desktop") as client:
        await client.login(account, PASSWORD)
        assert await client.pairings() == []


def test_plain_signs_where_the_output_takes_no_others(doctor: Doctor, server_url: str) -> None:
    status, output = doctor("--url", server_url, PYTHONIOENCODING="ascii")
    assert status == 0, output
    assert output.isascii()
    assert output.count("\n  +  ") == STEPS


def test_nobody_listening_is_said_plainly(doctor: Doctor) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        status, output = doctor("--url", url)
    assert status == 1
    assert f"{url} is not reachable" in output
    assert "pairing-server serve" in output


def test_another_kind_of_server_is_recognised(doctor: Doctor) -> None:
    with stranger(200, b"<html>") as url:
        status, output = doctor("--url", url)
    assert status == 1
    assert "✗  the server is there" in output
    assert "Is --url the pairing server's?" in output


def test_what_a_stranger_says_does_not_steer_the_terminal(doctor: Doctor) -> None:
    with stranger(400, b'{"error": "\\u001b[2J", "message": "\\u009b31m"}') as url:
        status, output = doctor("--url", url)
    assert status == 1
    assert "HTTP 400 \\x1b[2J: \\x9b31m" in output


def test_a_wrong_password_is_said_plainly(doctor: Doctor, server_url: str, account: str) -> None:
    status, output = doctor("--url", server_url, "--username", account, "--password", "wrong horse battery")
    assert status == 1
    assert "✗  log in as" in output
    assert "UNAUTHORIZED" in output
    assert "Check --username and --password" in output
    assert "wrong horse" not in output


def test_closed_registration_asks_for_an_account(doctor: Doctor, closed_server_url: str) -> None:
    status, output = doctor("--url", closed_server_url)
    assert status == 1
    assert "✗  register" in output
    assert "FORBIDDEN" in output
    assert "give --username and --password" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "ftp://127.0.0.1"],
        ["--url", "http://user:secret@127.0.0.1"],
        ["--url", "http://127.0.0.1:port"],
        ["--password", PASSWORD],
    ],
)
def test_a_wrong_use_is_refused_before_anything_is_done(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, ["doctor", *arguments])
    assert done.exit_code == 2
    assert "Usage" in done.output
    assert "secret" not in done.output
