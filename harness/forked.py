"""Commands of the program in processes that are forked from one that has imported it, and has done nothing else.

Importing the program takes a second of processor time, and a run of the tests starts some hundred processes.
`harness.program` starts the real program.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import reduction
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
# pytest is there when a forked process imports the main module of a worker again.
_CONTEXT.set_forkserver_preload(["pytest", "pairing_server.cli", "harness.forked"])


class _Passed:
    """A descriptor of this process that the forked one has, too."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[..., int], tuple[object]]:
        return _number, (reduction.DupFd(self._number),)


def _number(duplicate: Any) -> int:
    return int(duplicate.detach())


class Forked:
    """A command that was started; what it has of `subprocess.Popen` is the same there."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: Path,
        streams: tuple[int, int, int],
        listening: int | None = None,
    ) -> None:
        """`streams`: its standard input, output and error. `listening`: the socket of a service manager."""
        passed = [_Passed(number) for number in (*streams, *([] if listening is None else [listening]))]
        # Ended with this process, if a test has failed to do so.
        self._process: BaseProcess = _CONTEXT.Process(
            target=_run, args=(list(arguments), dict(environ), str(folder), passed), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit status, minus the number of the signal that has ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(arguments: Sequence[str], environ: Mapping[str, str], folder: str, passed: Sequence[int]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    # First out of the way of the numbers that they are to have.
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 32) for each in passed]
    for each in passed:
        os.close(each)
    for number, descriptor in enumerate(moved):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if len(passed) > 3:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if encoding := environ.get("PYTHONIOENCODING"):
        sys.stdout.reconfigure(encoding=encoding)  # type: ignore[union-attr]
    sys.argv = ["pairing-server", *arguments]

    from pairing_server.cli import main

    main()
