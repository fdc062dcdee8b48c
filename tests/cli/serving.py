"""`pairing-server serve` in a process of its own, as the terminal shows it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.forked import Forked

# Seconds until something counts as hung; a stop with the embedded database takes about one.
PATIENCE = 60


class Serving:
    """A started `serve`, as the terminal shows it."""

    def __init__(
        self, environ: Mapping[str, str], folder: Path, *options: str, command: Sequence[str] = ()
    ) -> None:
        """`command`: what to start in place of a forked process; `program()` is the real program."""
        self.log = folder / "serve.log"
        self.process: Forked | subprocess.Popen[bytes]
        reading, writing = os.pipe()
        self.output = os.fdopen(reading, encoding="utf-8")
        with self.log.open("w") as log, Path(os.devnull).open() as nothing, os.fdopen(writing, "w") as output:
            arguments = ["serve", *options]
            if command:
                self.process = subprocess.Popen(
                    [*command, *arguments],
                    env=dict(environ),
                    cwd=folder,
                    stdin=nothing,
                    stdout=output,
                    stderr=log,
                    start_new_session=True,
                )
            else:
                streams = nothing.fileno(), writing, log.fileno()
                self.process = Forked(arguments, environ=environ, folder=folder, streams=streams)
        self.announced = ""
        for line in self.output:
            self.announced += line
            if "Stop with Ctrl-C" in line:
                break
        found = re.search(r"listening on (http://\S+)", self.announced)
        assert found is not None, self.announced + self.log.read_text()
        self.url = found[1]

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Everything it said on standard error, once it has ended by that signal."""
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        return self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        self.kill()
        self.output.close()


@contextlib.contextmanager
def serving(
    environ: Mapping[str, str], folder: Path, *options: str, command: Sequence[str] = ()
) -> Iterator[Serving]:
    started = Serving(environ, folder, *options, command=command)
    try:
        yield started
    finally:
        started.close()
