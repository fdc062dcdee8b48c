"""Runs the commands as an operator does: a process of their own, with its environment, folder and input.

Importing the package takes a second, so most commands are forked from one process that has done so and
nothing else. `harness.program` starts the real one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.program import environment

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", "pairing_server.cli", "tests.cli.commands"])
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
    with tempfile.TemporaryDirectory(prefix="command-") as place:
        streams = [Path(place) / name for name in ("in", "out", "err")]
        streams[0].write_bytes(typed)
        process = _CONTEXT.Process(target=_run, args=(arguments, dict(environ), str(folder), streams))
        process.start()
        process.join(_TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = (stream.read_text(encoding="utf-8", errors="replace") for stream in streams[1:])
        status = process.exitcode
        process.close()
        return Result(status, out, err)


def _run(arguments: Sequence[str], environ: Mapping[str, str], folder: str, streams: Sequence[Path]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, stream in enumerate(streams):
        descriptor = os.open(stream, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["pairing-server", *arguments]

    from pairing_server.cli import main

    main()


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
