"""Where the values of settings come from, which of them wins, and which faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairing_server.config import ConfigurationError, load
from pairing_server.security.keys import SigningKey
from tests.config.given import SECRET, URL, configuration, faults


def test_an_unknown_name_stops_the_start_wherever_it_stands(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PAIRING_PROT=1\nOTHER=2\n")
    found = faults({"PAIRING_DATABSE_URL": "x", "PATH": "/bin"}, dotenv)
    assert [line.partition(":")[0] for line in found] == ["PAIRING_DATABSE_URL", "PAIRING_PROT"]
    assert found[1].endswith(f"did you mean PAIRING_PORT? ({dotenv}, line 1)")


def test_the_fault_of_an_unknown_name_says_which_name_is_meant() -> None:
    assert faults({"PAIRING_DATABSE_URL": "x"}) == [
        "PAIRING_DATABSE_URL: there is no such setting; did you mean PAIRING_DATABASE_URL?"
    ]
    assert faults({"PAIRING_WORKERS": "x"})[0].endswith("`pairing-server config --explain` lists all")


def test_all_faults_are_named_at_once() -> None:
    found = faults({"PAIRING_PORT": "x", "PAIRING_CODE_TTL": "0", "PAIRING_NOPE": "1"})
    assert len(found) == 3


def test_an_empty_value_counts_as_not_set() -> None:
    assert configuration({"PAIRING_PORT": "", "PAIRING_DATABASE_URL": ""}) == configuration({})


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text("# ours\nPAIRING_PORT=1\nexport PAIRING_CODE_TTL='10'\nPAIRING_REGISTRATION=closed\n")
    return path


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "database-url").write_text(f"{URL}\n")
    (folder / "jwt-keys").write_text(f"k1:{SECRET}\n")
    (folder / "code-ttl").write_text("20")
    (folder / "tls-certificate").write_text("not ours")
    return folder


def test_the_environment_wins_over_the_file(dotenv: Path) -> None:
    found = configuration({"PAIRING_PORT": "2"}, dotenv)
    assert (found.port, found.code_ttl, found.registration) == (2, 10, "closed")


def test_credential_files_are_settings_and_win_over_the_file(dotenv: Path, credentials: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    found = configuration(environ, dotenv)
    assert (found.database_url, found.jwt_keys) == (URL, (SigningKey("k1", SECRET.encode()),))
    assert (found.port, found.code_ttl) == (1, 20)
    assert configuration({**environ, "PAIRING_CODE_TTL": "30"}, dotenv).code_ttl == 30


def test_options_of_a_command_win_over_all(dotenv: Path) -> None:
    assert configuration({"PAIRING_PORT": "2"}, dotenv, PAIRING_PORT="3").port == 3


def test_another_file_of_settings_can_be_named_and_must_be_there(dotenv: Path, tmp_path: Path) -> None:
    named = tmp_path / "settings"
    named.write_text("# a comment\nPAIRING_PORT=4\n")
    environ = {"PAIRING_SETTINGS_FILE": str(named)}
    assert load(environ, {}, terminal=False, dotenv=dotenv).port == 4
    environ["PAIRING_SETTINGS_FILE"] = f"{named}-missing"
    with pytest.raises(ConfigurationError, match=r"PAIRING_SETTINGS_FILE: there is no file .*-missing"):
        load(environ, {}, terminal=False, dotenv=dotenv)


def test_credentials_that_a_reload_has_renewed_win_over_those_of_the_start(
    tmp_path: Path, credentials: Path
) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "RUNTIME_DIRECTORY": f"{tmp_path}/run:/run/other"}
    (credentials / "jwt-keys").write_text(f"old:{SECRET}")
    assert load(environ, {}, terminal=False).jwt_keys[0].kid == "old"
    (tmp_path / "run" / "credentials").mkdir(parents=True)
    (tmp_path / "run" / "credentials" / "jwt-keys").write_text(f"new:{SECRET}\n")
    assert load(environ, {}, terminal=False).jwt_keys[0].kid == "new"


def test_an_empty_credential_counts_as_not_set(dotenv: Path, credentials: Path) -> None:
    dotenv.write_text(f"PAIRING_JWT_KEYS=k1:{SECRET}\n")
    (credentials / "jwt-keys").write_text("\n")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert load(environ, {}, terminal=False, dotenv=dotenv).jwt_keys[0].kid == "k1"


def test_a_credentials_directory_that_is_missing_is_named() -> None:
    assert faults({"CREDENTIALS_DIRECTORY": "/none"}) == ["/none cannot be read: No such file or directory"]


def test_a_file_that_is_not_text_is_named(dotenv: Path, credentials: Path) -> None:
    (credentials / "jwt-keys").write_bytes(b"\xff\xfe")
    [fault] = faults({"CREDENTIALS_DIRECTORY": str(credentials)})
    assert fault == f"{credentials}/jwt-keys cannot be read: expected text in UTF-8"
    dotenv.write_bytes(b"PAIRING_PORT=\xff")
    assert faults({}, dotenv) == [f"{dotenv} cannot be read: expected text in UTF-8"]


def test_under_systemd_the_state_directory_is_the_data_directory() -> None:
    assert configuration({"STATE_DIRECTORY": "/var/lib/pairing:/other"}).data_dir == Path("/var/lib/pairing")
    both = {"STATE_DIRECTORY": "/var/lib/pairing", "PAIRING_DATA_DIR": "/srv/pairing"}
    assert configuration(both).data_dir == Path("/srv/pairing")


def test_a_home_folder_in_the_data_directory_is_found() -> None:
    assert configuration({"PAIRING_DATA_DIR": "~/x"}).data_dir == Path.home() / "x"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"MESSAGE_SIZE": "2000000", "QUEUE_SIZE": "3000000"}, ["MESSAGE_SIZE"]),
        ({"AUDIO_SIZE": "600000", "QUEUE_SIZE": "500000"}, ["AUDIO_SIZE"]),
        ({"QUEUE_PAUSE": "2000000"}, ["QUEUE_PAUSE"]),
        ({"FRAME_SIZE": "10000"}, ["MESSAGE_SIZE", "AUDIO_SIZE", "CONTROL_SIZE"]),
        ({"FRAME_SIZE": "524288", "QUEUE_SIZE": "524288"}, []),
    ],
)
def test_sizes_that_do_not_fit_each_other_stop_the_start(given: dict[str, str], found: list[str]) -> None:
    environ = {f"PAIRING_{name}": text for name, text in given.items()}
    if not found:
        configuration(environ)
        return
    assert [fault.partition(":")[0] for fault in faults(environ)] == [f"PAIRING_{name}" for name in found]
