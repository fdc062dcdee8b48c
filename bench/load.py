"""The load process as the run sees it: it is given a job, and returns what it has measured."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from typing import IO, Any, Self

import msgspec

from harness.program import ROOT

JOB_TIMEOUT_SECONDS = 180.0

Values = dict[str, float]


class JobFailed(Exception):
    """The load could not do its job; the text says why."""


class Load:
    """A load process on the cores of this one, which does one job after the other; leaving the `with` block ends it."""

    def __init__(self, *, yielding: bool = False) -> None:
        """`yielding`: it runs only while nothing else needs its core."""
        self._command = [sys.executable, "-m", "bench.load_process", "yielding" if yielding else "normal"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def do(self, job: str, **given: Any) -> Values:
        """Do that job of bench.load_process to its end. Raises JobFailed, also if it takes too long."""
        self._send(job, given)
        while "running" in (answer := self._read_answer()):
            pass
        result: Values = answer["result"]
        return result

    def begin(self, job: str, **given: Any) -> None:
        """Return once the job is being measured; it ends with this load. Raises JobFailed."""
        self._send(job, given)
        self._read_answer()

    def _send(self, job: str, given: dict[str, Any]) -> None:
        stdin, _ = self._pipes()
        stdin.write(msgspec.json.encode((job, given)) + b"\n")
        stdin.flush()

    def _read_answer(self) -> dict[str, Any]:
        _, stdout = self._pipes()
        # An answer is one short line, written at once.
        if not select.select([stdout], [], [], JOB_TIMEOUT_SECONDS)[0]:
            self._end()
            raise JobFailed(f"the load was not done within {JOB_TIMEOUT_SECONDS:.0f} s")
        line = stdout.readline()
        if not line:
            self._end()
            raise JobFailed("the load ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise JobFailed(answer["failed"][:200])
        return answer

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        process = self._process
        if process is None:
            process = self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        if process.stdin is None or process.stdout is None:
            raise JobFailed("the load has no pipes")
        return process.stdin, process.stdout

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
