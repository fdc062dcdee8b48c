"""The file of settings: what is not understood stops the start, by file and line; and names that are nearly right."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairing_server.cli.runtime import reloader
from pairing_server.config import NAMES, ConfigurationError
from tests.config.given import SECRET, configuration, faults


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.mark.parametrize(
    "line",
    [
        "PAIRING_REGISTRATION: closed",
        "PAIRING_REGISTRATION:closed",
        "PAIRING_REGISTRATION closed",
        "PAIRING_REGISTRATION",
        "export PAIRING_REGISTRATION",
        "set PAIRING_REGISTRATION=closed",
        "declare -x PAIRING_REGISTRATION=closed",
        'PAIRING_REGISTRATION="closed',
        "PAIRING_REGISTRATION='closed",
        "\ufeff\ufeffPAIRING_REGISTRATION",
        'PAIRING_REGISTRATION="clo"sed',
        "{",
        "[pairing]",
        "=closed",
        "OTHER: x",
        "\ufeff\ufeffPAIRING_REGISTRATION closed",
    ],
)
@pytest.mark.parametrize("before", ["", "\n\n# ours\n", "PAIRING_PORT=1\r\n\r\n"])
def test_a_line_that_is_not_understood_stops_the_start(dotenv: Path, before: str, line: str) -> None:
    dotenv.write_text(f"{before}{line}\nPAIRING_CODE_TTL=10\n")
    [fault] = faults({}, dotenv)
    number = before.replace("\r\n", "\n").count("\n") + 1
    assert fault.startswith(f"{dotenv}, line {number}: ")
    assert fault.endswith("expected NAME=value; quotes must be closed")


def test_every_such_line_is_named_and_none_is_quoted(dotenv: Path) -> None:
    dotenv.write_text(f"PAIRING_JWT_KEYS: k1:{SECRET}\nPAIRING_PORT=1\n\n{SECRET}\n")
    found = faults({}, dotenv)
    assert [fault.partition(": ")[0] for fault in found] == [f"{dotenv}, line 1", f"{dotenv}, line 4"]
    assert "PAIRING_JWT_KEYS…" in found[0]
    assert SECRET not in "".join(found)


def test_lines_that_are_understood_are_those_of_shells_and_docker(dotenv: Path) -> None:
    dotenv.write_text(
        "\ufeff# a comment\n\n  export PAIRING_PORT = '1' # one\nOTHER='a\nb'\nPAIRING_CODE_TTL=\"2${ZERO:-0}\"\n"
        "PAIRING_DATA_DIR=/srv/${NAME}/#x # y\nPAIRING_DEMO=\n"
    )
    found = configuration({"NAME": "pair"}, dotenv)
    assert (found.port, found.code_ttl, found.data_dir) == (1, 20, Path("/srv/pair/#x"))


def test_a_variable_in_a_value_must_be_set(dotenv: Path) -> None:
    dotenv.write_text(f"PAIRING_PORT=1\nPAIRING_DATABASE_URL=postgresql://u:${{{'P'}}}@db/name\n")
    assert faults({}, dotenv) == [f"{dotenv}, line 2: PAIRING_DATABASE_URL uses ${{P}}, which is not set"]
    assert configuration({"P": "x"}, dotenv).database_url == "postgresql://u:x@db/name"


def test_quotes_that_are_closed_some_lines_later_swallow_no_setting(dotenv: Path) -> None:
    dotenv.write_text('PAIRING_DATA_DIR="data\nPAIRING_REGISTRATION=closed\nPAIRING_DEMO="\n')
    [fault] = faults({}, dotenv)
    assert fault == f"PAIRING_DATA_DIR: expected one line without control characters ({dotenv}, line 1)"


def test_issuers_may_have_several_lines(dotenv: Path) -> None:
    dotenv.write_text(
        """PAIRING_ISSUERS='[
  {"issuer": "https://id.example", "audience": "a", "algorithms": ["RS256"], "jwks": "/keys"}
]'\n"""
    )
    assert [issuer.issuer for issuer in configuration({}, dotenv).issuers] == ["https://id.example"]


def test_a_fault_of_a_value_names_its_line(dotenv: Path) -> None:
    dotenv.write_text("\nPAIRING_PORT=eighty\n")
    assert faults({}, dotenv)[0].endswith(f"got 'eighty' ({dotenv}, line 2)")


def test_what_stands_in_its_place_and_is_no_file_stops_the_start(dotenv: Path) -> None:
    dotenv.mkdir()  # as Docker makes one, where a file that is missing is mounted
    assert faults({}, dotenv) == [f"{dotenv} cannot be read: Is a directory"]
    dotenv.rmdir()
    dotenv.symlink_to("nowhere")
    assert faults({}, dotenv) == [f"{dotenv} cannot be read: No such file or directory"]


@pytest.mark.parametrize("value", ["a\nb", "\x1b[31m", "\x9b31m", "\x7f", "x\udcff"])
@pytest.mark.parametrize("name", NAMES)
def test_no_value_has_control_characters_or_is_no_text(name: str, value: str) -> None:
    [fault] = faults({name: value})
    assert fault.startswith(f"{name}: ")
    assert fault.isprintable()


# Names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PARING_REGISTRATION", "PAIRING_REGISTRATION"),
        ("PAIRNG_PORT", "PAIRING_PORT"),
        ("PIARING_PORT", "PAIRING_PORT"),
        ("PAIRINGS_PORT", "PAIRING_PORT"),
        ("PAIRINGPORT", "PAIRING_PORT"),
        ("PAIRING-PORT", "PAIRING_PORT"),
        ("pairing_port", "PAIRING_PORT"),
        ("Paring_Guest_Pairing", "PAIRING_GUEST_PAIRING"),
        ("PARING_SETTINGS_FILE", "PAIRING_SETTINGS_FILE"),
        ("PAIRING_SETTING_FILE", "PAIRING_SETTINGS_FILE"),
    ],
)
def test_a_name_that_is_nearly_right_stops_the_start_wherever_it_stands(
    dotenv: Path, name: str, meant: str
) -> None:
    assert faults({name: "1"}) == [f"{name}: there is no such setting; did you mean {meant}?"]
    dotenv.write_text(f"{name}=1\n")
    assert faults({}, dotenv) == [
        f"{name}: there is no such setting; did you mean {meant}? ({dotenv}, line 1)"
    ]


@pytest.mark.parametrize("name", ["paring-jwt-keys", "jwt_keyz", "pairing-jwt-keys", "database-ulr"])
def test_a_credential_whose_name_is_nearly_right_stops_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SECRET)
    [fault] = faults({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert fault.startswith(f"{tmp_path}/{name}: there is no such setting; did you mean ")


@pytest.mark.parametrize(
    "name",
    ["PORT", "LOG_LEVEL", "DATABASE_URL", "MIGRATE_DATABASE_URL", "SHARING_PORT", "PAIRS", "PARSING_MODE"],
)
def test_names_of_other_programs_are_left_alone(dotenv: Path, name: str) -> None:
    dotenv.write_text(f"{name}=x\n")
    assert configuration({name: "x"}, dotenv).port == 8089


# SIGHUP


def test_a_file_that_is_gone_for_a_moment_changes_nothing(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dotenv.parent)
    dotenv.write_text("PAIRING_REGISTRATION=closed\n")
    reload = reloader({})
    dotenv.rename(dotenv.parent / "kept")
    with pytest.raises(ConfigurationError, match=r"\.env: this file was there at the start, and is gone"):
        reload()
    (dotenv.parent / "kept").rename(dotenv)
    assert reload().registration == "closed"


def test_a_file_that_was_never_there_need_not_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reloader({})().registration == "open"
