"""Servers as operators start them: a process of their own, with an embedded database of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60


def environment(**settings: str) -> dict[str, str]:
    """The environment of this process, but with these settings only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAIRING_")}
    return {**kept, "PYTHONPATH": str(ROOT), **settings}


@contextmanager
def serving(**settings: str) -> Iterator[str]:
    """The URL of `pairing-server serve`, run with these settings for as long as this lasts.

    Not below pytest's own folder: each run of pytest shuts that to others, and as root PostgreSQL runs as
    another user.
    """
    with tempfile.TemporaryDirectory(prefix="pairing-serve-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        command = [sys.executable, "-m", "pairing_server", "serve", "--port", "0", "--data-dir", "data"]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                command,
                cwd=folder,
                env=environment(**settings),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield _url(process) or pytest.fail((folder / "log").read_text())
            finally:
                process.terminate()
                process.wait(TIMEOUT)


def _url(process: subprocess.Popen[str]) -> str | None:
    """The URL that it says it listens on, once it does. None if it ends instead."""
    too_late = Timer(TIMEOUT, process.kill)
    too_late.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"listening on (http://\S+)", line):
                return found[1]
        return None
    finally:
        too_late.cancel()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A server with registration open."""
    with serving(PAIRING_REGISTRATION="open") as url:
        yield url


@pytest.fixture(scope="session")
def closed_server_url() -> Iterator[str]:
    """A server with registration closed."""
    with serving(PAIRING_REGISTRATION="closed") as url:
        yield url
