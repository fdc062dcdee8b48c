"""The first process of a container: it leaves no zombies, hands signals on, and ends as the server does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not can_unshare(), reason="needs the right to make a namespace of processes")


def first_process(body: str) -> subprocess.Popen[str]:
    """Runs the body as the first process of a namespace of its own, split off."""
    text = "from pairing_server.server.init_process import split_off\nsplit_off()\n" + textwrap.dedent(body)
    return subprocess.Popen([*NAMESPACE, sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


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
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("ready", flush=True)
        while True:
            signal.pause()
    """
    with first_process(body) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        [inside] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(inside), number)
        assert process.wait(30) == status


def test_elsewhere_nothing_is_split_off() -> None:
    text = "import os; from pairing_server.server.init_process import split_off; before = os.getpid(); split_off(); assert os.getpid() == before"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
