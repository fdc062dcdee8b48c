"""config: the settings in effect, as the command shows them and as every command refuses them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from harness.program import environment
from pairing_server.config import NAMES, SETTINGS
from tests.cli.commands import Result, command

SECRET = "s" * 40


def config(folder: Path, environ: dict[str, str]) -> Result:
    return command("config", environ=environ, folder=folder)


def shown(folder: Path, environ: dict[str, str]) -> dict[str, str]:
    done = config(folder, environ)
    assert done.status == 0, done.text
    return dict(line.split("=", 1) for line in done.out.splitlines() if not line.startswith("#"))


def test_every_setting_is_shown_with_its_value_in_effect(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PAIRING_PORT=9000\nPAIRING_CODE_TTL=60\n")
    values = shown(
        tmp_path, environment(PORT="9001", ALLOWED_ORIGINS="https://b.example,https://*.a.example")
    )
    assert tuple(values) == NAMES
    assert (values["PAIRING_PORT"], values["PAIRING_CODE_TTL"]) == ("9001", "60")
    assert values["PAIRING_DATA_DIR"] == str(tmp_path / "data")
    assert values["PAIRING_ALLOWED_ORIGINS"] == "https://*.a.example, https://b.example"


def test_each_value_that_is_no_default_names_its_source(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("\nPAIRING_PORT=9000\nPAIRING_CODE_TTL=60\nPAIRING_MESSAGE_RATE=\n")
    secrets = tmp_path / "credentials"
    secrets.mkdir()
    (secrets / "jwt-keys").write_text(f"k1:{SECRET}")
    environ = environment(PORT="9001") | {"CREDENTIALS_DIRECTORY": str(secrets), "STATE_DIRECTORY": "/state"}
    lines = config(tmp_path, environ).out.splitlines()
    found = {below.partition("=")[0]: line for line, below in pairwise(lines) if line.startswith("#")}
    assert found == {
        "PAIRING_PORT": "# from the environment",
        "PAIRING_CODE_TTL": "# from .env, line 3",
        "PAIRING_JWT_KEYS": f"# from {secrets}/jwt-keys",
        "PAIRING_DATA_DIR": "# from STATE_DIRECTORY of the environment",
    }
    explained = command("config", "--explain", environ=environ, folder=tmp_path).out
    assert explained.count("\n# default\n") == len(NAMES) - len(found)


def test_all_settings_are_explained_where_an_unknown_one_points_to_that(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PAIRING_XYZZY=1\n")
    refused = config(tmp_path, environment())
    assert (
        "PAIRING_XYZZY: there is no such setting; `pairing-server config --explain` lists all" in refused.err
    )
    done = command("config", "--explain", environ=environment(), folder=tmp_path)
    assert done.status == 1 and "PAIRING_XYZZY" in done.err
    assert tuple(line.partition("=")[0] for line in done.out.splitlines() if line[0] != "#") == NAMES


def test_what_is_shown_can_be_set_again(tmp_path: Path) -> None:
    set_ = environment(
        ALLOWED_ORIGINS="https://b.example:8443,http://localhost:3000",
        TRUSTED_PROXIES="10.0.0.0/8,192.0.2.1",
        CODE_RATE="7/60",
        GUEST_PAIRING="yes",
        DATA_DIR=str(tmp_path),
    )
    first = shown(tmp_path, set_)
    hidden = {setting.variable for setting in SETTINGS if setting.secret}
    again = {**environment(), **{name: value for name, value in first.items() if name not in hidden}}
    assert shown(tmp_path, again) == first


def test_no_secret_is_shown(tmp_path: Path) -> None:
    done = config(
        tmp_path,
        environment(JWT_KEYS=f"k1:{SECRET}", DATABASE_URL=f"postgresql://u:{SECRET}@db.example/name"),
    )
    assert done.status == 0
    assert SECRET not in done.text
    assert "PAIRING_DATABASE_URL=(set, not shown)\nPAIRING_MIGRATE_DATABASE_URL=(not set)\n" in done.out
    assert "PAIRING_JWT_KEYS=(set, not shown)\n" in done.out


def test_explained_settings_have_their_meaning_unit_and_reload(tmp_path: Path) -> None:
    done = command("config", "--explain", environ=environment(CODE_TTL="60"), folder=tmp_path)
    assert (
        "# how long a code can be redeemed (seconds, reloaded by SIGHUP)\n# from the environment\nPAIRING_CODE_TTL=60\n"
        in done.out
    )
    assert (
        "# the port to listen on; 0 takes a free one (needs a restart)\n# default\nPAIRING_PORT=" in done.out
    )


def test_showing_the_settings_makes_no_file(tmp_path: Path) -> None:
    done = config(tmp_path, environment())
    assert "does not exist yet; the first start makes it" in done.err
    assert list(tmp_path.iterdir()) == []


def test_every_fault_is_named_at_once_and_without_secrets(tmp_path: Path) -> None:
    environ = environment(PORT="eighty", CODE_TTL="0", PROT="1", JWT_KEYS=SECRET[:31])
    done = config(tmp_path, environ)
    assert (done.status, done.out) == (1, "")
    told = done.err.splitlines()
    assert told[0] == "Error: The configuration is not valid."
    assert [line.partition(":")[0] for line in told[1:]] == [
        "PAIRING_PROT",
        "PAIRING_PORT",
        "PAIRING_JWT_KEYS",
        "PAIRING_CODE_TTL",
    ]
    assert SECRET[:31] not in done.err


def test_every_command_refuses_wrong_settings(tmp_path: Path) -> None:
    environ = environment(PORT="eighty")
    for arguments in (("serve",), ("migrate",), ("user", "list"), ("token", "issue", "a"), ("audit", "list")):
        done = command(*arguments, environ=environ, folder=tmp_path)
        assert (done.status, done.out) == (1, ""), arguments
        assert "PAIRING_PORT: expected a whole number from 0 to 65535, got 'eighty'" in done.err
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_the_first_steps_are_shown(tmp_path: Path) -> None:
    helped = command("--help", environ=environment(), folder=tmp_path)
    assert helped.status == 0
    for step in ("pairing-server serve", "pairing-server doctor", "pairing-server user add"):
        assert step in helped.out
    bare = command(environ=environment(), folder=tmp_path)
    assert bare.status == 2
    assert "pairing-server serve" in bare.text
    assert command("--version", environ=environment(), folder=tmp_path).out.startswith(
        "pairing-server, version"
    )
