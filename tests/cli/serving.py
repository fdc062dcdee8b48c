"""The real `pairing-server serve`, as the terminal shows it."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.program import program

# Seconds until something counts as hung; a stop with the embedded database takes about one.
PATIENCE = 60


class Serving:
    """A started `serve`, as the terminal shows it."""

    def __init__(
        self, environ: Mapping[str, str], folder: Path, *options: str, command: Sequence[str] = program()
    ) -> None:
        self.log = folder / "serve.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "serve", *options],
                env=dict(environ),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.announced = ""
        for line in self.process.stdout:
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
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def serving(environ: Mapping[str, str], folder: Path, *options: str) -> Iterator[Serving]:
    started = Serving(environ, folder, *options)
    try:
        yield started
    finally:
        started.close()
