"""Every command's `--help` ends with examples that parse, the exit statuses, and where to read on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from harness.program import ROOT, environment
from pairing_server.cli import cli
from tests.cli.commands import command

# Takes the place of the program: it writes down what the shell makes of the line.
_STUB = f"""#!{sys.executable}
import os, sys
with open(os.environ["WORDS"], "w") as out:
    out.write("\\0".join(sys.argv[1:]))
"""


def commands(group: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        for name, inner in group.commands.items():
            yield from commands(inner, f"{path} {name}".strip())


COMMANDS = dict(commands(cli))
_EPILOG = re.compile(
    r"\x08\nExamples:\n(?P<examples>.+)\n\n\x08\nExit status:\n  (?P<status>0 .+)\n\n\x08\nRead on:\n  (?P<read>.+)",
    re.S,
)


def epilog_of(path: str) -> dict[str, str]:
    found = _EPILOG.fullmatch(COMMANDS[path].epilog or "")
    assert found is not None, f"`pairing-server {path}` has no epilog of this form"
    return found.groupdict()


def examples_of(path: str) -> list[str]:
    """Command lines; what each is for is indented further."""
    return re.findall(r"^  (\S.*)$", epilog_of(path)["examples"], re.M)


EXAMPLES = [(path, example) for path in COMMANDS for example in examples_of(path)]


def help_of(path: str) -> str:
    context = click.Context(COMMANDS[path], info_name=path, **cli.context_settings)
    return COMMANDS[path].get_help(context)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_has_an_example_of_this_very_command_the_exit_status_and_where_to_read_on(path: str) -> None:
    shown, epilog = help_of(path), epilog_of(path)
    assert COMMANDS[path].help, "what it is for"
    assert examples_of(path)
    for example in examples_of(path):
        assert f"\n    {example}\n" in shown, "whole, on a line of its own"
        assert f"pairing-server {path}".strip() in example
    assert f"Exit status:\n    {epilog['status']}\n" in shown
    assert f"Read on:\n    {epilog['read']}" in shown


@pytest.mark.parametrize("path", COMMANDS)
def test_where_to_read_on_is_there(path: str) -> None:
    document, _, heading = epilog_of(path)["read"].partition(", ")
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    assert heading in {line.lstrip("# ") for line in lines if line.startswith("#")}


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_every_example_parses(path: str, example: str, tmp_path: Path) -> None:
    stub = tmp_path / "bin" / "pairing-server"
    stub.parent.mkdir()
    stub.write_text(_STUB)
    stub.chmod(0o755)
    (tmp_path / "bin" / "curl").symlink_to("/bin/true")
    for name in re.findall(r"(?<![/\w])[\w-]+\.(?:tar|txt|jsonl|pub)\b", example):
        (tmp_path / name).write_text("")
    words = tmp_path / "words"
    home = {"HOME": str(tmp_path), "PATH": f"{stub.parent}:{os.environ['PATH']}", "WORDS": str(words)}
    # Where the output goes is the reader's.
    line = re.sub(r">+ (?:~|\"\$)\S+", "> output", example)
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, env=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    arguments = words.read_text().split("\0") if words.read_text() else []
    found: click.Command = cli
    while isinstance(found, click.Group) and arguments:
        found = found.commands[arguments.pop(0)]
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        found.make_context(path, [_public_key(word) for word in arguments])
    finally:
        os.chdir(before)


def _public_key(word: str) -> str:
    """The example reads the key from a file, which is empty here."""
    return word or "ed25519:" + "A" * 43 + "="


def test_the_real_program_shows_it(tmp_path: Path) -> None:
    told = command("keys", "rotate", "--help", environ=environment(), folder=tmp_path)
    assert (told.status, told.err) == (0, "")
    assert "    pairing-server keys rotate > jwt-keys.new\n" in told.out
