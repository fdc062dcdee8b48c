"""Runs the commands as an operator does: a process of their own, with its environment, folder and input.

Most are forked (`harness.forked`). `harness.program` starts the real one.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.forked import Forked
from harness.program import environment

_TIMEOUT = 60
# Nobody listens on port 1.
NO_DATABASE = "postgresql://nobody:secret@127.0.0.1:1/none"


@dataclass(frozen=True)
class Result:
    status: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def command(*arguments: str, environ: Mapping[str, str], folder: Path, stdin: str | bytes = "") -> Result:
    """Run one command to its end in `folder`."""
    typed = stdin.encode() if isinstance(stdin, str) else stdin
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(typed)
        given.seek(0)
        streams = given.fileno(), out.fileno(), err.fileno()
        process = Forked(arguments, environ=environ, folder=folder, streams=streams)
        try:
            process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return Result(process.poll(), *(_content(stream) for stream in (out, err)))


def _content(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")


class Operator:
    """Runs commands on one database, in one folder."""

    def __init__(self, database_url: str, folder: Path, **settings: str) -> None:
        given = {"DATABASE_URL": database_url, "JWT_KEYS": f"k1:{'s' * 32}", **settings}
        self.environ = environment(**given)
        self.folder = folder

    def run(self, *arguments: str, stdin: str | bytes = "") -> Result:
        return command(*arguments, environ=self.environ, folder=self.folder, stdin=stdin)

    def says(self, *arguments: str, stdin: str | bytes = "") -> str:
        """What a command prints that must succeed, and that without a complaint."""
        done = self.run(*arguments, stdin=stdin)
        assert (done.status, done.err) == (0, ""), done.text
        return done.out

    def refuses(self, *arguments: str, status: int = 1, stdin: str | bytes = "") -> str:
        """What a command complains about that must fail in plain words: no traceback, nothing on its output.

        The error of `serve` is an event of its log.
        """
        done = self.run(*arguments, stdin=stdin)
        assert (done.status, done.out) == (status, ""), done.text
        assert "Traceback" not in done.err
        if arguments[:1] == ("serve",):
            return str(json.loads(done.err.splitlines()[-1])["error"])
        assert "Error: " in done.err
        return done.err
