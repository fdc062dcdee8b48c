"""The load's processes, from the side of the run: a job in, what was measured out."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from types import TracebackType
from typing import IO, Any, Self

from bench.machine import ROOT, two_cores

JOB_TIMEOUT = 180.0

Values = dict[str, float]


class JobFailed(Exception):
    """The load could not do its job; the text says why."""


class Load:
    """A load process on the load's core, one job after the other; leaving the `with` block ends it."""

    def __init__(self, *, yielding: bool = False) -> None:
        """`yielding`: it runs only while nothing else wants its core."""
        _, core = two_cores()
        self._command = [sys.executable, "-m", "bench.load", str(core), "yielding" if yielding else "normal"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def do(self, job: str, **given: Any) -> Values:
        """Do the job. Raises JobFailed; also if it takes too long."""
        self._give(job, given)
        while "running" in (answer := self._answer()):
            pass
        result: Values = answer["result"]
        return result

    def begin(self, job: str, **given: Any) -> None:
        """Return once the job has begun to be measured. It ends with this load. Raises JobFailed."""
        self._give(job, given)
        self._answer()

    def _give(self, job: str, given: dict[str, Any]) -> None:
        stdin, _ = self._pipes()
        stdin.write(json.dumps({"job": job, **given}).encode() + b"\n")
        stdin.flush()

    def _answer(self) -> dict[str, Any]:
        _, stdout = self._pipes()
        # An answer is one short line, written at once.
        if not select.select([stdout], [], [], JOB_TIMEOUT)[0]:
            self._end()
            raise JobFailed(f"the load was not done within {JOB_TIMEOUT:.0f} s")
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
