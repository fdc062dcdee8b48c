"""The first process of a container: it leaves no zombies, hands signals on, and ends as the server does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not can_unshare(), reason="needs the right to make a namespace of processes")


@contextlib.contextmanager
def first_process(body: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the body as the first process of a namespace of its own, split off. At the end nothing of it is left."""
    text = "from pairing_server.server.init_process import split_off\nsplit_off()\n" + textwrap.dedent(body)
    command = [*NAMESPACE, sys.executable, "-c", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_processes_without_a_parent_leave_no_zombie_and_children_keep_their_ends() -> None:
    """An orphan tells by a pipe that it has ended: its end of it is closed by then."""
    body = """
        import os, subprocess, sys
        from pathlib import Path
        assert os.getppid() == 1
        reading, writing = os.pipe()
        subprocess.run(["sh", "-c", "sleep 0.01 & echo"], pass_fds=[writing], stdout=subprocess.DEVNULL)
        os.close(writing)
        assert os.read(reading, 1) == b""
        assert subprocess.run(["sh", "-c", "exit 7"]).returncode == 7
        def states():
            for stat in Path("/proc").glob("[0-9]*/stat"):
                try:
                    yield stat.read_text().rpartition(")")[2].split()[0]
                except OSError:
                    pass
        while "Z" in states():
            pass
        sys.exit(3)
    """
    with first_process(body) as process:
        assert process.wait(30) == 3


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 128 + signal.SIGHUP)], ids=["taken", "fatal"]
)
def test_signals_reach_the_server_whose_end_is_the_containers(number: signal.Signals, status: int) -> None:
    body = """
        import signal, sys
        # Who runs the tests may ignore it.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        print("ready", flush=True)
        sys.exit(0 if signal.sigwait([signal.SIGTERM]) else 1)
    """
    with first_process(body) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        [inside] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(inside), number)
        assert process.wait(30) == status


def test_elsewhere_nothing_is_split_off() -> None:
    text = "import os; from pairing_server.server.init_process import split_off; before = os.getpid(); split_off(); assert os.getpid() == before"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
