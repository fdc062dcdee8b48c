"""Loads the configuration from the options of a command, the environment, credential files and a file of settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from pairing_server.config.configuration import NAMES, SETTINGS, Configuration
from pairing_server.config.setting import PREFIX
from pairing_server.security.addresses import is_loopback

# Names the file of settings that is read instead of `.env`. It is not a setting itself.
FILE = "PAIRING_SETTINGS_FILE"


class ConfigurationError(Exception):
    """Every fault found, one a line, each with the setting's name and what was expected."""


def gather(environ: Mapping[str, str], dotenv: Path) -> dict[str, str]:
    """The texts that are set, by variable: the environment wins over credential files, they win over the file of settings.

    Raises ConfigurationError if a file exists but cannot be read.
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
    """The file that PAIRING_SETTINGS_FILE names, which must exist, else `dotenv`. Raises ConfigurationError."""
    if not (named := environ.get(FILE)):
        return dotenv
    if not Path(named).is_file():
        raise ConfigurationError(f"{FILE}: there is no file {named}")
    return Path(named)


def credential_folders(environ: Mapping[str, str]) -> list[Path]:
    """The folders with secrets in files: those that systemd copied at the start, then those that a reload has renewed."""
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
    """The configuration. `overrides` (variable → text), the options of a command, win over everything else.

    Raises ConfigurationError with every fault. It makes no file: see `with_keys`.
    """
    given = {**gather(environ, dotenv), **overrides}
    faults = [f"{name}: there is no such setting; {_hint(name)}" for name in sorted(set(given) - set(NAMES))]
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.variable in given:
            try:
                values[setting.name] = setting.parse(given[setting.variable])
            except ValueError as error:
                faults.append(f"{setting.variable}: {error}")
    if faults:
        raise ConfigurationError("\n".join(faults))
    return _completed(values, environ, terminal=terminal)


def _hint(unknown: str) -> str:
    names = [setting.name.upper() for setting in SETTINGS]
    similar = get_close_matches(unknown.removeprefix(PREFIX), names, 1, cutoff=0.7)
    return f"did you mean {PREFIX}{similar[0]}?" if similar else "see docs/operations.md"


def _completed(values: dict[str, Any], environ: Mapping[str, str], *, terminal: bool) -> Configuration:
    """The configuration with the defaults that depend on other settings, or on how the server was started."""
    if terminal:
        values.setdefault("log_format", "text")
    if state := environ.get("STATE_DIRECTORY"):
        values.setdefault("data_dir", Path(state.partition(":")[0]))
    config = Configuration(**values)
    host = f"[{config.host}]" if ":" in config.host else config.host
    private = config.embedded and is_loopback(config.host)
    registration = config.registration or ("open" if private else "closed")
    return replace(
        config,
        data_dir=config.data_dir.absolute(),
        registration=registration,
        demo=registration == "open" if config.demo is None else config.demo,
        public_url=config.public_url or f"http://{host}:{config.port}",
    )
