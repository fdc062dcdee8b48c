"""Runs commands in the process of the test, a hundred in the time that one process of its own takes to start."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.program import environment
from pairing_server.cli import main
from tests.cli.commands import Result


class InProcess:
    """A folder and an environment, in which commands run one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: str) -> None:
        self.monkeypatch = monkeypatch
        self.folder = folder
        monkeypatch.chdir(folder)
        for name, value in environment(JWT_KEYS=f"k1:{'s' * 32}", **settings).items():
            monkeypatch.setenv(name, value)

    def run(self, *arguments: str) -> Result:
        """Any exception but the one that ends a process goes through."""
        logger = logging.getLogger()
        handlers, level = logger.handlers[:], logger.level
        out, err = _Stream(), _Stream()
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["pairing-server", *arguments])
            patch.setattr(sys, "stdin", io.StringIO("correct horse battery\n"))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                main()
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 0
            finally:
                logger.handlers[:] = handlers
                logger.setLevel(level)
        return Result(status, out.text, err.text)


class _Stream(io.TextIOWrapper):
    """Takes what a command prints, also as bytes."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(errors="replace")


def controls(text: str) -> Sequence[str]:
    """What is in the text besides what can be read, tabs and ends of lines."""
    return [character for character in text if not character.isprintable() and character not in "\n\t"]
