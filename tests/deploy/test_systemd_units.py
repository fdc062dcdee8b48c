"""deploy/systemd and scripts/install-systemd: what systemd makes of the units, and what is put where."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.program import ROOT, environment, program
from harness.service_manager import TIMEOUT_SECONDS
from pairing_server.config import NAMES, Configuration
from tests.cli.commands import command
from tests.programs import needs

UNITS = ROOT / "deploy" / "systemd"
STARTS = ("ExecStartPre", "ExecStart")
SERVICES = ("pairing-server.service", "pairing-server@.service")
# The score of `systemd-analyze security` in tenths: 10 is "OK", 100 wide open.
EXPOSURE = 15


# Files of /etc/pairing-server.
SECRETS = {"audit-seal-key", "database-url", "jwt-keys", "migrate-database-url"}


def credentials(loaded: Iterable[str]) -> set[str]:
    """The names of credentials, each of which comes from the file of its name."""
    pairs = [each.split(":") for each in loaded]
    assert all(path == f"/etc/pairing-server/{name}" for name, path in pairs)
    return {name for name, _ in pairs}


class _Lists(dict[str, object]):
    """A setting that stands several times in a unit has all of its values."""

    def __setitem__(self, key: str, value: object) -> None:
        before = self.get(key)
        super().__setitem__(
            key, [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
        )


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    parser = configparser.RawConfigParser(dict_type=_Lists, strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name, encoding="utf-8")
    return {
        section: {key: str(value).split("\n") for key, value in parser[section].items()}
        for section in parser.sections()
    }


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with a program in place of the server that is there."""
    program_path = tmp_path / "opt" / "current" / "bin" / "pairing-server"
    program_path.parent.mkdir(parents=True)
    program_path.symlink_to("/bin/true")
    for path in UNITS.glob("*.s*"):
        text = path.read_text(encoding="utf-8").replace("/opt/pairing-server", f"{tmp_path}/opt")
        (tmp_path / path.name).write_text(text)
    return tmp_path


@needs("systemd-analyze")
@pytest.mark.parametrize("instance", ["", "@8090"])
def test_systemd_has_nothing_to_say_against_the_units(installed: Path, instance: str) -> None:
    names = [str(installed / f"pairing-server{instance}.{kind}") for kind in ("service", "socket")]
    done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs("systemd-analyze")
@pytest.mark.parametrize("name", SERVICES)
def test_the_services_are_hardly_exposed(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(UNITS / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]
    assert done.stderr == ""


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_a_unit_where_every_user_could_read_it(name: str) -> None:
    service = unit(name)["Service"]
    assert service["Environment"] == ["PAIRING_SETTINGS_FILE=/etc/pairing-server/settings"]
    assert credentials(service["LoadCredential"]) == SECRETS


def test_commands_get_the_secrets_of_the_service() -> None:
    """Also the URL of the role that owns the tables, and the key that seals: they migrate, restore, rebase and verify."""
    text = (UNITS / "pairing-server").read_text(encoding="utf-8")
    assert credentials(re.findall(r"LoadCredential=(\S+)", text)) == SECRETS
    assert sorted(re.findall(r"SetCredential=([a-z-]+):", text)) == sorted(SECRETS)


def test_several_processes_do_not_start_without_the_keys_that_they_share() -> None:
    one, many = (unit(name)["Service"]["SetCredential"] for name in SERVICES)
    assert sorted(each.partition(":")[0] for each in one) == sorted(SECRETS)
    assert many == [r"migrate-database-url:\n"]


def test_a_credential_is_the_setting_of_its_name() -> None:
    assert {f"PAIRING_{name.upper().replace('-', '_')}" for name in SECRETS} <= set(NAMES)


def test_several_processes_differ_from_one_only_where_they_must() -> None:
    one, many = (unit(name)["Service"] for name in SERVICES)
    differing = {key for key in one.keys() | many.keys() if one.get(key) != many.get(key)}
    assert differing == {"StateDirectory", "RuntimeDirectory", "ExecReload", "SetCredential"}
    sockets = [unit(name)["Socket"] for name in ("pairing-server.socket", "pairing-server@.socket")]
    config = Configuration()
    assert [socket.pop("ListenStream") for socket in sockets] == [
        [f"{config.host}:{config.port}"],
        [f"{config.host}:%i"],
    ]
    assert sockets[0] == sockets[1]


def test_the_commands_of_the_units_exist(tmp_path: Path) -> None:
    lines = {line for name in SERVICES for key in STARTS for line in unit(name)["Service"][key]}
    for line in lines:
        path, *arguments = line.split()
        assert path == "/opt/pairing-server/current/bin/pairing-server"
        shown = command(*arguments, "--help", environ=environment(), folder=tmp_path)
        assert shown.status == 0 and f"Usage: pairing-server {arguments[0]}" in shown.out


def test_the_settings_that_come_along_are_right_also_without_their_comments(tmp_path: Path) -> None:
    text = (UNITS / "settings").read_text(encoding="utf-8")
    proposed = re.findall(r"^#?(PAIRING_\w+=.*)$", text, re.MULTILINE)
    assert len(proposed) >= 4
    environ = environment() | dict(line.split("=", 1) for line in proposed)
    shown = command("config", environ=environ, folder=tmp_path)
    assert shown.status == 0, shown.text
    assert "PAIRING_TRUSTED_PROXIES=127.0.0.1/32" in shown.out


# What the service runs under, where a kernel can be asked for the same: no memory both writable and executable.
_NO_NEW_CODE = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_it_runs_where_no_memory_may_become_executable(database_url: str, tmp_path: Path) -> None:
    """MemoryDenyWriteExecute=: threads start (passwords are hashed in one), and compiled parts work."""
    environ = environment(DATABASE_URL=database_url, JWT_KEYS=f"k1:{'s' * 32}", PORT="0")
    add = subprocess.run(
        [*_wrapped(), *program("user", "add", "alice")],
        env=environ,
        cwd=tmp_path,
        input="a long enough password\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if add.returncode == 77:
        pytest.skip("this kernel is older than 6.3: it has no PR_SET_MDWE")
    assert add.returncode == 0, add.stderr
    assert add.stdout.startswith("Added alice (user)")


def _wrapped() -> list[str]:
    return [program()[0], "-c", _NO_NEW_CODE]


# Installing


def install(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "install-systemd"), *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wrong_use_is_told_and_changes_nothing(tmp_path: Path) -> None:
    for arguments, told in (
        ((), "which wheel?"),
        (("--purge",), "--purge goes with --remove"),
        (("missing.whl",), "there is no file missing.whl"),
        (("README.md",), "README.md is no wheel"),
        (("--sideways",), "there is no option --sideways"),
        (("--remove", "a.whl"), "--remove takes no wheel"),
    ):
        done = install("--root", str(tmp_path), *arguments)
        assert done.returncode == 1 and told in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_removing_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    assert install("--root", str(tmp_path), "--remove", "--purge").returncode == 0
