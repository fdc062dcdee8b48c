"""completion: the shells that are here complete our commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.program import environment, program
from tests.cli.commands import command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str, tmp_path: Path) -> None:
    done = command("completion", shell, environ=environment(), folder=tmp_path)
    assert done.status == 0
    assert "_PAIRING_SERVER_COMPLETE" in done.out
    if found := shutil.which(shell):
        checked = subprocess.run([found, "-n"], input=done.out, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_what_the_script_asks_is_answered(tmp_path: Path) -> None:
    environ = environment() | {
        "_PAIRING_SERVER_COMPLETE": "bash_complete",
        "COMP_WORDS": "pairing-server user set",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        ["pairing-server"],
        executable=str(Path(program()[0]).with_name("pairing-server")),
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,set-password", "plain,set-role"]


def test_an_unknown_shell_is_refused(tmp_path: Path) -> None:
    done = command("completion", "csh", environ=environment(), folder=tmp_path)
    assert done.status == 2 and "csh" in done.err
