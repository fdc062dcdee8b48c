"""Reads the settings: from the environment, credential files, a file of settings and the options of a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from pairing_server.config.configuration import NAMES, PREFIX, READERS, Configuration
from pairing_server.security.addresses import is_loopback

# Names the file of settings to read instead of `.env`; itself it is no setting.
FILE = "PAIRING_SETTINGS_FILE"


class ConfigurationError(Exception):
    """Every fault found, one a line, each with the setting's name and what was expected."""


def gather(environ: Mapping[str, str], dotenv: Path) -> dict[str, str]:
    """What is set, by name: the environment before credential files before the file of settings.

    Raises ConfigurationError if one of the files is there but cannot be read.
    """
    path = settings_file(environ, dotenv)
    with _readable(path):
        found = {
            name: value
            for name, value in dotenv_values(path).items()
            if name.startswith(PREFIX) and value is not None
        }
    for folder in credential_folders(environ):
        found.update(_credentials(folder))
    found.update({name: value for name, value in environ.items() if name.startswith(PREFIX) and name != FILE})
    return {name: value for name, value in found.items() if value != ""}


def settings_file(environ: Mapping[str, str], dotenv: Path = Path(".env")) -> Path:
    """The file that PAIRING_SETTINGS_FILE names, which must be there, or else `dotenv`. Raises ConfigurationError."""
    if not (named := environ.get(FILE)):
        return dotenv
    if not Path(named).is_file():
        raise ConfigurationError(f"{FILE}: there is no file {named}")
    return Path(named)


def credential_folders(environ: Mapping[str, str]) -> list[Path]:
    """Where secrets are in files: what systemd copied at the start, then what a reload has brought since."""
    folders = []
    if given := environ.get("CREDENTIALS_DIRECTORY"):
        folders.append(Path(given))
    if given := environ.get("RUNTIME_DIRECTORY"):
        renewed = Path(given.partition(":")[0]) / "credentials"
        if renewed.is_dir():
            folders.append(renewed)
    return folders


def _credentials(folder: Path) -> dict[str, str]:
    found = {}
    with _readable(folder):
        paths = list(folder.iterdir())
    for path in paths:
        name = PREFIX + path.name.upper().replace("-", "_")
        if name in NAMES:
            with _readable(path):
                text = path.read_text(encoding="utf-8").strip()
            if text:
                found[name] = text
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} cannot be read: expected text in UTF-8") from None


def load(
    environ: Mapping[str, str], overrides: Mapping[str, str], *, terminal: bool, dotenv: Path = Path(".env")
) -> Configuration:
    """The settings; `overrides` (PAIRING_… → text) win, as options of a command do.

    Raises ConfigurationError with every fault. Reads, but makes no file: see `with_keys`.
    """
    given = {**gather(environ, dotenv), **overrides}
    faults = [
        f"{name}: there is no such setting; see docs/operations.md"
        for name in sorted(set(given) - set(NAMES))
    ]
    values: dict[str, Any] = {}
    for name, reader in READERS.items():
        variable = PREFIX + name.upper()
        if variable not in given:
            continue
        try:
            values[name] = reader(given[variable])
        except ValueError as error:
            faults.append(f"{variable}: {error}")
    if faults:
        raise ConfigurationError("\n".join(faults))
    return _completed(values, environ, terminal=terminal)


def _completed(values: dict[str, Any], environ: Mapping[str, str], *, terminal: bool) -> Configuration:
    values.setdefault("log_format", "text" if terminal else "json")
    if "data_dir" not in values and (state := environ.get("STATE_DIRECTORY")):
        values["data_dir"] = Path(state.partition(":")[0])
    config = Configuration(**values)
    values["data_dir"] = config.data_dir.absolute()
    if not config.registration:
        values["registration"] = "open" if config.embedded and is_loopback(config.host) else "closed"
    if config.demo is None:
        values["demo"] = (config.registration or values["registration"]) == "open"
    if not config.public_url:
        host = f"[{config.host}]" if ":" in config.host else config.host
        values["public_url"] = f"http://{host}:{config.port}"
    return Configuration(**values)
