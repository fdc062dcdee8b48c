"""Loads the configuration from the options of a command, the environment, credential files and a file of settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pairing_server.config.configuration import NAMES, SETTINGS, Configuration
from pairing_server.config.connection_settings import with_connection_settings
from pairing_server.config.setting import PREFIX, Setting
from pairing_server.config.settings_file import FILE, ConfigurationError, Given, meant, read
from pairing_server.security.addresses import is_loopback

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A first size that is larger than the second one is never reached: what is larger than the second closes the connection.
_WITHIN = (
    ("message_size", "frame_size"),
    ("audio_size", "frame_size"),
    ("control_size", "frame_size"),
    ("message_size", "queue_size"),
    ("audio_size", "queue_size"),
    ("queue_pause", "queue_size"),
)


def gather(environ: Mapping[str, str], dotenv: Path) -> dict[str, Given]:
    """What is set, by variable: the environment wins over credential files, they win over the file of settings.

    Variables of other programs are left out, unless their name is nearly that of a setting. Raises ConfigurationError
    if a file exists but cannot be read or understood.
    """
    found: dict[str, Given] = {}
    path = settings_file(environ, dotenv)
    if path.exists() or path.is_symlink():
        with _readable(path):
            found.update(read(path, environ))
    for folder in credential_folders(environ):
        found.update(_credentials(folder))
    found.update({name: Given(value) for name, value in environ.items() if name != FILE})
    return {
        name: given
        for name, given in found.items()
        if given.text != "" and (name.startswith(PREFIX) or meant(name) is not None)
    }


def sources(environ: Mapping[str, str], dotenv: Path = Path(".env")) -> dict[str, str]:
    """Where each setting that is set has its value from; the others have their defaults. Raises ConfigurationError."""
    found = {name: given.source or "the environment" for name, given in gather(environ, dotenv).items()}
    if environ.get("STATE_DIRECTORY"):
        found.setdefault("PAIRING_DATA_DIR", "STATE_DIRECTORY of the environment")
    return found


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


def _credentials(folder: Path) -> dict[str, Given]:
    found = {}
    with _readable(folder):
        paths = list(folder.iterdir())
    for path in paths:
        name = PREFIX + path.name.upper().replace("-", "_")
        if name in NAMES:
            with _readable(path):
                text = path.read_text(encoding="utf-8").strip()
            if text:
                found[name] = Given(text, str(path))
        elif similar := meant(name) or meant(path.name):
            raise ConfigurationError(
                f"{path}: there is no such setting; did you mean"
                f" {similar.removeprefix(PREFIX).lower().replace('_', '-')}?"
            )
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
    given = gather(environ, dotenv) | {name: Given(text) for name, text in overrides.items()}
    faults = [_fault(name, given[name], _unknown(name)) for name in sorted(set(given) - set(NAMES))]
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.variable in given:
            try:
                values[setting.name] = _value(setting, given[setting.variable].text)
            except ValueError as error:
                faults.append(_fault(setting.variable, given[setting.variable], str(error)))
    if faults:
        raise ConfigurationError("\n".join(faults))
    config = _completed(values, environ, terminal=terminal)
    if faults := list(_beyond(config)):
        raise ConfigurationError("\n".join(faults))
    try:
        return with_connection_settings(config)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _value(setting: Setting[Any], text: str) -> Any:
    """Raises ValueError, which says what was expected."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text in UTF-8") from None
    if _CONTROL.search(text.strip()) and not setting.multiline:
        raise ValueError("expected one line without control characters")
    return setting.parse(text)


def _fault(name: str, given: Given, what: str) -> str:
    return f"{name}: {what}" + (f" ({given.source})" if given.source else "")


def _beyond(config: Configuration) -> Iterator[str]:
    """The faults of sizes that do not fit each other."""
    for inner, outer in _WITHIN:
        size, bound = getattr(config, inner), getattr(config, outer)
        if size > bound:
            yield (
                f"{PREFIX}{inner.upper()}: {size} is more than {PREFIX}{outer.upper()} ({bound});"
                " lower the first, or raise the second"
            )


def _unknown(name: str) -> str:
    if name == FILE:
        return "this is taken from the environment alone"
    similar = meant(name)
    hint = f"did you mean {similar}?" if similar else "`pairing-server config --explain` lists all"
    return f"there is no such setting; {hint}"


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
