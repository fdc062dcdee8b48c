"""The server under a service manager: which notifications it sends when, and on which socket it listens."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.processes import port_of, reserved_port
from harness.program import environment, program
from harness.service_manager import TIMEOUT_SECONDS, ServiceManager
from pairing_server.db import migrations
from tests.cli.commands import NO_DATABASE
from tests.conftest import execute
from tests.programs import needs

Supervise = Callable[..., ServiceManager]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Makes service managers for the test: supervise(database_url, PAIRING_… without the prefix)."""
    managers: list[ServiceManager] = []

    def make(database_url: str, watchdog: float | None = None, **settings: str) -> ServiceManager:
        folder = tmp_path / f"service-{len(managers)}"
        folder.mkdir()
        environ = environment(DATABASE_URL=database_url, JWT_KEYS=f"k1:{'s' * 32}", **settings)
        managers.append(ServiceManager(environ, folder, watchdog=watchdog, forked=True))
        return managers[-1]

    yield make
    for manager in managers:
        manager.close()


def ask(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_manager_is_notified_of_start_life_and_stop_in_this_order(
    supervise: Supervise, database_url: str
) -> None:
    manager = supervise(database_url, watchdog=1.5)
    process = manager.start()
    assert manager.receive() == "READY=1\nSTATUS=0 connections, 0 channels with both devices"
    assert ask(manager.url + "/readyz") == 200
    assert "STOPPING=1" not in "".join(manager.receive_until("WATCHDOG=1"))
    manager.receive_until("WATCHDOG=1")
    process.send_signal(signal.SIGTERM)
    assert not [told for told in manager.receive_until("STOPPING=1") if "READY" in told]
    assert process.wait(TIMEOUT_SECONDS) == 0, manager.log.read_text()


def test_a_restart_refuses_no_connection_while_the_manager_holds_the_socket(
    supervise: Supervise, database_url: str
) -> None:
    manager = supervise(database_url)
    first = manager.start()
    manager.receive_until("READY=1")
    first.send_signal(signal.SIGTERM)
    assert first.wait(TIMEOUT_SECONDS) == 0
    # No process runs now: a connection waits, and the next process answers.
    host = ("127.0.0.1", int(manager.url.rpartition(":")[2]))
    with socket.create_connection(host, TIMEOUT_SECONDS) as early:
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: pairing.test\r\nConnection: close\r\n\r\n")
        manager.start()
        assert early.recv(15) == b"HTTP/1.1 200 OK"


def test_under_a_manager_the_server_waits_for_a_database_that_is_away(supervise: Supervise) -> None:
    manager = supervise(NO_DATABASE)
    process = manager.start()
    assert manager.receive().startswith("READY=1\nSTATUS=Waiting for the database;")
    assert (ask(manager.url + "/healthz"), ask(manager.url + "/readyz")) == (200, 503)
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_SECONDS) == 0, manager.log.read_text()


def test_the_schema_is_checked_once_the_database_is_there(
    supervise: Supervise, database_url: str, postgres: str
) -> None:
    admin = postgres.replace("/pairing?", "/postgres?")
    [name] = re.findall(r"/(test_\d+)\?", database_url)
    execute(admin, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    waiting, behind = supervise(database_url), supervise(database_url)
    waiting.start()
    assert "Waiting for the database" in waiting.receive()
    execute(admin, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    waiting.receive_until("STATUS=0 connections")
    assert ask(waiting.url + "/readyz") == 200
    # Before the server can check: it may do so at any moment from when the database is there.
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    execute(admin, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    process = behind.start()
    assert "Waiting for the database" in behind.receive()
    execute(admin, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    assert process.wait(TIMEOUT_SECONDS) == 1
    assert (
        f"revision 9999, which is newer than this release knows ({migrations.head()})"
        in behind.log.read_text()
    )


def test_credentials_are_read_from_the_managers_folder(
    supervise: Supervise, database_url: str, tmp_path: Path
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "database-url").write_text(database_url)
    (credentials / "jwt-keys").write_text(f"k9:{'t' * 32}\n")
    manager = supervise("")
    del manager.environ["PAIRING_DATABASE_URL"], manager.environ["PAIRING_JWT_KEYS"]
    manager.environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    manager.start()
    manager.receive_until("READY=1")
    assert ask(manager.url + "/readyz") == 200


def test_a_reload_notifies_the_manager_and_takes_over_the_file_of_settings(
    supervise: Supervise, database_url: str, tmp_path: Path
) -> None:
    settings = tmp_path / "settings"
    settings.write_text("PAIRING_LOG_LEVEL=info\nPAIRING_ALLOWED_ORIGINS=https://old.example\n")
    manager = supervise(database_url, SETTINGS_FILE=str(settings))
    process = manager.start()
    manager.receive_until("READY=1")
    assert ask(manager.url + "/healthz", Origin="https://new.example") == 403
    settings.write_text("PAIRING_ALLOWED_ORIGINS=https://new.example\n")
    process.send_signal(signal.SIGHUP)
    assert [told.partition("\n")[0] for told in manager.receive_until("READY=1")][-2:] == [
        "RELOADING=1",
        "READY=1",
    ]
    assert ask(manager.url + "/healthz", Origin="https://new.example") == 200
    settings.write_text("PAIRING_ALLOWED_ORIGINS=*\n")
    process.send_signal(signal.SIGHUP)
    assert [told.partition("\n")[0] for told in manager.receive_until("READY=1")][-2:] == [
        "RELOADING=1",
        "READY=1",
    ]
    assert ask(manager.url + "/healthz", Origin="https://new.example") == 200
    log = [json.loads(line) for line in manager.log.read_text().splitlines()]
    [refused] = [line for line in log if line["message"] == "configuration refused"]
    assert refused["error"].startswith("PAIRING_ALLOWED_ORIGINS: ")


@needs("systemd-socket-activate")
def test_it_listens_on_the_socket_that_systemd_opens(database_url: str, tmp_path: Path) -> None:
    environ = environment(DATABASE_URL=database_url, JWT_KEYS=f"k1:{'s' * 32}", PORT="1")
    given = [f"--setenv={name}={value}" for name, value in environ.items()]
    with (
        reserved_port() as held,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [
                "systemd-socket-activate",
                f"--listen=127.0.0.1:{port_of(held)}",
                "--fdname=http",
                *given,
                *program("serve"),
            ],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            # It opens the socket some time later; a connection then starts the server and waits for it.
            said = ""
            while "Listening on" not in said and process.poll() is None:
                said = (tmp_path / "log").read_text()
            assert ask(f"http://127.0.0.1:{port_of(held)}/readyz") == 200
            process.terminate()
            assert process.wait(TIMEOUT_SECONDS) == 0
        finally:
            process.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()
