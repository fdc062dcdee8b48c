"""serve: the real program from its start to its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import environment, program
from pairing_server.db import migrations
from tests.cli.commands import NO_DATABASE, Operator, command
from tests.cli.serving import PATIENCE, Serving, serving
from tests.conftest import execute
from tests.test_logs import TIME


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path, PORT="0")


def test_it_prints_where_it_listens_and_stops_cleanly_at_sigterm(operator: Operator) -> None:
    with serving(operator.environ, operator.folder, command=program()) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", server.url)
        assert server.url.replace("http", "ws") + "/ws" in server.announced
        assert f"pairing-server doctor --url {server.url}" in server.announced
        assert "closed (pairing-server user add NAME)" in server.announced
        assert (server.status("/healthz"), server.status("/readyz"), server.status("/docs")) == (
            200,
            200,
            200,
        )
        said = server.stop()
    events = [json.loads(line)["message"] for line in said.splitlines()]
    assert events[0] == "listening" and "stopping" in events and events[-1] == "stopped"
    assert "Traceback" not in said
    told = [line.split()[3] for line in operator.says("audit", "list").splitlines()[1:]]
    assert told == ["audit.seal", "audit.stopped", "system.stopping", "system.started", "audit.started"]


def test_the_garbage_collector_leaves_alone_what_was_imported(operator: Operator) -> None:
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count(), len(gc.get_objects())))"
    (operator.folder / "sitecustomize.py").write_text(code)
    environ = {**operator.environ, "PYTHONPATH": str(operator.folder)}
    with serving(environ, operator.folder, command=program()) as server:
        server.stop()
        frozen, others = map(int, server.output.read().split()[-2:])
    assert frozen > 50_000 > others


def test_ctrl_c_stops_it_as_sigterm_does(operator: Operator) -> None:
    with serving(operator.environ, operator.folder) as server:
        assert json.loads(server.stop(signal.SIGINT).splitlines()[-1])["message"] == "stopped"


# Runs in the process of the server: a library warns, a thread dies, and a destructor fails.
_NOISE = """
import threading, warnings
class Fragile:
    def __del__(self): raise ValueError("in a destructor")
def noise():
    warnings.warn("an old function", DeprecationWarning)
    Fragile()
    threading.Thread(target=lambda: 1 / 0).start()
threading.Timer(0, noise)
import pairing_server.server.lifecycle as lifecycle
class Noisy(lifecycle.StatusSocket):
    async def open(self):
        warnings.simplefilter("always")
        noise()
        await super().open()
lifecycle.StatusSocket = Noisy
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_each_line_of_standard_error_is_an_event(operator: Operator, form: str) -> None:
    (operator.folder / "noisy.py").write_text(_NOISE + "from pairing_server.cli import main; main()")
    environ = {**operator.environ, "PAIRING_LOG_FORMAT": form}
    server = Serving(environ, operator.folder, command=[sys.executable, "noisy.py"])
    try:
        said = server.stop()
    finally:
        server.close()
    if form == "json":
        assert all(re.fullmatch(TIME, json.loads(line)["time"]) for line in said.splitlines())
    else:
        events = [line for line in said.splitlines() if not line.startswith("  ")]
        assert all(re.match(rf"{TIME} (INFO   |WARNING|CRITICAL) \S", line) for line in events)
    for told in ("an old function", "ValueError: in a destructor", "ZeroDivisionError", "stopped"):
        assert told in said


@pytest.mark.parametrize(
    ("arguments", "settings", "status", "told"),
    [
        (("--port", "0"), {"PORTT": "1"}, 1, "did you mean PAIRING_PORT?"),
        (("--port", "0"), {"LOG_FORMAT": "xml"}, 1, "PAIRING_LOG_FORMAT"),
        (("--sideways",), {}, 2, "--sideways"),
    ],
)
def test_what_ends_it_before_its_configuration_is_known_is_an_event_as_well(
    tmp_path: Path, arguments: tuple[str, ...], settings: dict[str, str], status: int, told: str
) -> None:
    assert told in Operator(NO_DATABASE, tmp_path, **settings).refuses("serve", *arguments, status=status)


def test_a_port_in_use_is_told_with_what_to_change(operator: Operator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = operator.refuses("serve", "--port", str(port))
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in told
    assert "PAIRING_PORT" in told


def test_a_port_in_use_is_told_before_a_database_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = environment(DATA_DIR=str(tmp_path / "data"), PORT=str(port))
        told = command("serve", environ=environ, folder=tmp_path)
    assert told.status == 1 and f"Cannot listen on 127.0.0.1:{port}" in told.err
    assert not (tmp_path / "data").exists()


def test_an_address_of_another_machine_is_told_with_what_to_change(operator: Operator) -> None:
    assert "Cannot listen on 192.0.2.1:0" in operator.refuses("serve", "--host", "192.0.2.1")


def test_options_win_over_the_environment_and_are_checked_alike(tmp_path: Path) -> None:
    operator = Operator(NO_DATABASE, tmp_path, PORT="eighty")
    assert "Check PAIRING_DATABASE_URL" in operator.refuses("serve", "--port", "0", "--no-wait")
    assert "PAIRING_PORT: expected a whole number" in operator.refuses("serve", "--port", "high")
    assert "PAIRING_HOST: expected an address" in operator.refuses("serve", "--port", "0", "--host", "")


def test_it_waits_for_a_database_that_is_not_there_and_stops_meanwhile(tmp_path: Path) -> None:
    operator = Operator(NO_DATABASE, tmp_path, PORT="0")
    with serving(operator.environ, operator.folder) as server:
        assert (server.status("/healthz"), server.status("/readyz")) == (200, 503)
        said = server.stop()
    events = [json.loads(line) for line in said.splitlines()]
    [waiting] = [event for event in events if event["message"] == "waiting for the database"]
    assert waiting["at"] == "127.0.0.1:1" and "refused" in waiting["reason"]
    assert events[-1]["message"] == "stopped" and "Traceback" not in said


def test_it_stops_at_once_while_a_database_that_does_not_answer_keeps_it_from_listening(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable&connect_timeout=300"
        operator = Operator(url, tmp_path, PORT="0")
        with (tmp_path / "log").open("w") as log:
            server = subprocess.Popen(
                program("serve"), env=operator.environ, cwd=tmp_path, stdout=log, stderr=log
            )
        try:
            with silent.accept()[0]:  # It has begun to connect.
                server.send_signal(signal.SIGTERM)
                assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
            server.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert '"stopped"' in (tmp_path / "log").read_text()


def test_without_patience_it_ends_where_the_database_is_not_there(tmp_path: Path) -> None:
    told = Operator(NO_DATABASE, tmp_path, PORT="0").refuses("serve", "--no-wait")
    assert told.startswith("The database cannot be used: ") and "refused" in told


def test_a_schema_that_is_behind_is_refused_with_the_command_to_run(
    empty_database: str, tmp_path: Path
) -> None:
    told = Operator(empty_database, tmp_path, PORT="0").refuses("serve")
    assert f"The database is at revision none, this release needs {migrations.head()}." in told
    assert "Run: pairing-server migrate" in told


def test_a_schema_that_is_newer_is_refused_and_left_alone(operator: Operator, database_url: str) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    told = operator.refuses("serve")
    assert f"revision 9999, which is newer than this release knows ({migrations.head()})" in told


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder whose name has spaces, for the embedded database of the tests below."""
    path = Path(tempfile.mkdtemp(prefix="a server's folder ", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def postgres_runs(home: Path) -> bool:
    """Whether a PostgreSQL works in the data directory."""
    with contextlib.suppress(OSError, ValueError):
        number = int((home / "my data" / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(number, 0)
        return True
    return False


def embedded(**settings: str) -> dict[str, str]:
    return environment(PORT="0", DATA_DIR="my data", **settings)


def test_without_a_database_it_brings_its_own_and_stops_it_in_the_end(home: Path) -> None:
    with serving(embedded(), home) as server:
        assert server.status("/readyz") == 200
        assert "Registration   open" in server.announced
        assert postgres_runs(home)
        keys = home / "my data" / "jwt-keys"
        assert keys.stat().st_mode & 0o777 == 0o600
        assert (home / "my data").stat().st_mode & 0o066 == 0
        # Ctrl-C in a terminal goes to every process of the terminal.
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
        assert json.loads(server.log.read_text().splitlines()[0])["message"] == "embedded database starting"
    assert not postgres_runs(home)


def test_commands_share_the_embedded_database_of_a_running_server(home: Path) -> None:
    with serving(embedded(), home) as server:
        done = command(
            "user", "add", "alice", environ=embedded(), folder=home, stdin="a long enough password"
        )
        assert done.status == 0, done.text
        assert server.status("/readyz") == 200
        server.stop()
    assert not postgres_runs(home)


def test_after_a_kill_the_next_start_finds_the_database_and_stops_it_in_the_end(home: Path) -> None:
    with serving(embedded(), home) as server:
        added = command("user", "add", "kim", environ=embedded(), folder=home, stdin="a long enough password")
        assert added.status == 0, added.text
        server.kill()
    assert postgres_runs(home)
    with serving(embedded(), home) as server:
        assert server.status("/readyz") == 200
        server.stop()
    assert not postgres_runs(home)
    listed = command("user", "list", environ=embedded(), folder=home)
    assert "kim" in [line.split("\t")[0] for line in listed.out.splitlines()]
    assert not postgres_runs(home)
