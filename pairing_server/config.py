"""The settings: read from PAIRING_* of the environment, credential files and a file of settings, into a frozen value.

A wrong or unknown name or value stops the start, by name, with what was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values

from pairing_server.relay.limits import RelayLimits
from pairing_server.seals import SealKey
from pairing_server.security.addresses import parse_networks
from pairing_server.security.issuers import Issuer, parse_issuers
from pairing_server.security.keyfile import NAME as KEY_FILE
from pairing_server.security.keyfile import KeyFile, check_private, make_once
from pairing_server.security.keys import SigningKey, parse_keys
from pairing_server.security.limits import Rate
from pairing_server.security.origins import Origins
from pairing_server.services.deps import PairingRules

PREFIX = "PAIRING_"
SEAL_KEY_FILE = "audit-seal-key"
# Names the file of settings to read instead of `.env`; itself it is no setting.
FILE = "PAIRING_SETTINGS_FILE"


class ConfigurationError(Exception):
    """Every fault found, one a line, each with the setting's name and what was expected."""


def loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to that host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Settings:
    host: str = "127.0.0.1"
    port: int = 8089
    public_url: str = ""
    database_url: str | None = field(default=None, repr=False)
    migrate_database_url: str | None = field(default=None, repr=False)
    data_dir: Path = Path("data")
    jwt_keys: tuple[SigningKey, ...] = field(default=(), repr=False)
    issuers: tuple[Issuer, ...] = ()
    registration: str = ""
    redeem_policy: str = "same_user"
    guest_pairing: bool = False
    demo: bool | None = None
    allowed_origins: Origins = field(default_factory=lambda: Origins.parse([]))
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    code_ttl: int = 300
    reconnect_grace: int = 300
    ws_token_ttl: int = 3600
    ws_token_single_use: bool = False
    codes_per_user: int = 3
    max_live_codes: int = 50_000
    code_rate: Rate = Rate(5, 300)
    code_rate_address: Rate = Rate(100, 300)
    redeem_alarm: Rate = Rate(50, 60)
    message_rate: int = 60
    message_burst: int = 120
    audio_rate: int = 20
    audio_bytes_rate: int = 512 * 1024
    audio_bytes_burst: int = 2 * 1024 * 1024
    frame_rate: int = 200
    join_rate: Rate = Rate(5, 10)
    handshake_failures: Rate = Rate(20, 60)
    connections_per_address: int = 200
    connections_per_user: int = 10
    frame_engine: str = "auto"
    audit_seal_key: SealKey | None = field(default=None, repr=False)
    audit_seal_copy: str = ""
    audit_retention: int = 400
    audit_export_dir: Path | None = None
    log_format: str = "json"
    log_level: str = "info"

    @property
    def embedded(self) -> bool:
        """Whether the server runs a PostgreSQL of its own."""
        return self.database_url is None

    @property
    def pairing_rules(self) -> PairingRules:
        return PairingRules(
            code_ttl=self.code_ttl,
            same_user=self.redeem_policy == "same_user",
            guests=self.guest_pairing,
            codes_per_user=self.codes_per_user,
            max_live_codes=self.max_live_codes,
            code_rate=self.code_rate,
            code_rate_address=self.code_rate_address,
            alarm=self.redeem_alarm,
            reconnect_grace=self.reconnect_grace,
            public_url=self.public_url,
        )

    @property
    def relay_limits(self) -> RelayLimits:
        return RelayLimits(
            message_rate=self.message_rate,
            message_burst=self.message_burst,
            audio_rate=self.audio_rate,
            audio_bytes_rate=self.audio_bytes_rate,
            audio_bytes_burst=self.audio_bytes_burst,
            frame_rate=self.frame_rate,
            join_count=self.join_rate.count,
            join_seconds=self.join_rate.seconds,
            connections_per_address=self.connections_per_address,
            connections_per_user=self.connections_per_user,
            reconnect_grace=self.reconnect_grace,
            code_ttl=self.code_ttl,
        )


# Turns the text of a setting into its value; ValueError says what was expected.
Reader = Callable[[str], Any]


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _number(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        if not (text.isascii() and text.strip().isdecimal() and low <= int(text) <= high):
            raise ValueError(f"expected a whole number from {low} to {high}, got {text[:40]!r}")
        return int(text)

    return read


def _one_of(*words: str) -> Reader:
    def read(text: str) -> str:
        value = text.strip().lower()
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}, got {value[:40]!r}")
        return value

    return read


def _flag(text: str) -> bool:
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if text.strip().lower() not in words:
        raise ValueError(f"expected true or false, got {text[:40]!r}")
    return words[text.strip().lower()]


def _url(*schemes: str, local: bool = False) -> Reader:
    """A URL with a host, which only a `local` one may lack. A fault's text does not repeat it: it may hold a password."""
    expected = ValueError(
        f"expected a URL that begins with {' or '.join(f'{s}://' for s in schemes)}, such as"
        f" {schemes[0]}://{'user:password@host:5432/name' if local else 'host:8089'}"
    )

    def parse(text: str) -> str:
        scheme, separator, rest = text.partition("://")
        login, _, places = rest.partition("/")[0].rpartition("@")
        try:
            # Of databases there may be several: host:port,host:port
            hosts = (
                [urlsplit(f"{scheme}://{login}@{place}") for place in places.split(",")]
                if local
                else [urlsplit(text)]
            )
            rightly = all(host.port is None or host.port > 0 for host in hosts)
        except ValueError:
            raise expected from None
        named = all(host.hostname for host in hosts) or (local and len(hosts) == 1)
        if not rightly or not separator or scheme not in schemes or not named:
            raise expected
        return text if local else text.rstrip("/")

    return parse


def _host(text: str) -> str:
    if not text.strip() or any(c.isspace() or c in "/?#@" for c in text):
        raise ValueError("expected an address or a host name to listen on")
    return text.strip()


def _file_or_url(text: str) -> str:
    """An absolute path, or a URL that takes a POST."""
    if "://" in text:
        return str(_url("https", "http")(text))
    return str(Path(text).expanduser().absolute())


_READERS: Mapping[str, Reader] = {
    "host": _host,
    "port": _number(0, 65535),
    "public_url": _url("http", "https"),
    "database_url": _url("postgresql", "postgres", local=True),
    "data_dir": lambda text: Path(text).expanduser(),
    "migrate_database_url": _url("postgresql", "postgres", local=True),
    "jwt_keys": parse_keys,
    "issuers": parse_issuers,
    "registration": _one_of("open", "closed"),
    "redeem_policy": _one_of("same_user", "any_user"),
    "guest_pairing": _flag,
    "demo": _flag,
    "allowed_origins": lambda text: Origins.parse(_items(text)),
    "trusted_proxies": lambda text: parse_networks(_items(text)),
    "code_ttl": _number(1, 600),
    "reconnect_grace": _number(1, 86400),
    "ws_token_ttl": _number(1, 86400),
    "ws_token_single_use": _flag,
    "codes_per_user": _number(1, 1_000_000),
    "max_live_codes": _number(1, 1_000_000),
    "code_rate": Rate.parse,
    "code_rate_address": Rate.parse,
    "redeem_alarm": Rate.parse,
    "message_rate": _number(1, 10_000_000),
    "message_burst": _number(1, 10_000_000),
    "audio_rate": _number(1, 10_000_000),
    "audio_bytes_rate": _number(1, 10**12),
    "audio_bytes_burst": _number(1, 10**12),
    "frame_rate": _number(1, 10_000_000),
    "join_rate": Rate.parse,
    "handshake_failures": Rate.parse,
    "connections_per_address": _number(1, 10_000_000),
    "connections_per_user": _number(1, 10_000_000),
    "frame_engine": _one_of("auto", "compiled", "tornado"),
    "audit_seal_key": SealKey.parse,
    "audit_seal_copy": _file_or_url,
    "audit_retention": _number(30, 36_500),
    "audit_export_dir": lambda text: Path(text).expanduser().absolute(),
    "log_format": _one_of("text", "json"),
    "log_level": _one_of("debug", "info", "warning", "error"),
}

NAMES = tuple(PREFIX + name.upper() for name in _READERS)
SECRETS = ("jwt_keys", "database_url", "migrate_database_url", "audit_seal_key")


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
) -> Settings:
    """The settings; `overrides` (PAIRING_… → text) win, as options of a command do.

    Raises ConfigurationError with every fault. Reads, but makes no file: see `with_keys`.
    """
    given = {**gather(environ, dotenv), **overrides}
    faults = [
        f"{name}: there is no such setting; see docs/operations.md"
        for name in sorted(set(given) - set(NAMES))
    ]
    values: dict[str, Any] = {}
    for name, reader in _READERS.items():
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


def _completed(values: dict[str, Any], environ: Mapping[str, str], *, terminal: bool) -> Settings:
    values.setdefault("log_format", "text" if terminal else "json")
    if "data_dir" not in values and (state := environ.get("STATE_DIRECTORY")):
        values["data_dir"] = Path(state.partition(":")[0])
    settings = Settings(**values)
    values["data_dir"] = settings.data_dir.absolute()
    if not settings.registration:
        values["registration"] = "open" if settings.embedded and loopback(settings.host) else "closed"
    if settings.demo is None:
        values["demo"] = (settings.registration or values["registration"]) == "open"
    if not settings.public_url:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        values["public_url"] = f"http://{host}:{settings.port}"
    return Settings(**values)


def keyfile_of(settings: Settings) -> KeyFile | None:
    """The file that keeps the signing keys; None if they are set instead."""
    return None if settings.jwt_keys else KeyFile(settings.data_dir / KEY_FILE)


def with_keys(settings: Settings) -> Settings:
    """The settings with signing keys: those given, else those kept in the data directory, made once.

    Raises ConfigurationError if the file is not usable or open to others.
    """
    file = keyfile_of(settings)
    if file is None:
        return settings
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"PAIRING_DATA_DIR: {settings.data_dir} cannot be made: {error.strerror}"
        ) from None
    try:
        return replace(settings, jwt_keys=file.read())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"PAIRING_JWT_KEYS is not set and {file.path} is not usable: {error}"
        ) from None


def with_seal_key(settings: Settings) -> Settings:
    """The settings with the key that seals the audit log: that given, else that of the data directory, made once.

    The directory is made in any case: audit events wait in it. Raises ConfigurationError if the file is not usable
    or open to others.
    """
    path = settings.data_dir / SEAL_KEY_FILE
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if settings.audit_seal_key is None:
            raise ConfigurationError(
                f"PAIRING_AUDIT_SEAL_KEY is not set and {path} is not usable: {error}"
            ) from None
    if settings.audit_seal_key is not None:
        return settings
    try:
        make_once(path, lambda: SealKey.generate()[1])
        check_private(path, path.stat())
        return replace(settings, audit_seal_key=SealKey.parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"PAIRING_AUDIT_SEAL_KEY is not set and {path} is not usable: {error}"
        ) from None


def effective(settings: Settings) -> dict[str, str]:
    """Every setting's name and value as text, secrets masked."""
    shown = {}
    for name in _READERS:
        value = getattr(settings, name)
        if name in SECRETS:
            without = {"database_url": "(embedded)", "migrate_database_url": "(not set)"}
            text = "(set, not shown)" if value else without.get(name, "(generated)")
        elif name == "issuers":
            text = ", ".join(issuer.issuer for issuer in value)
        elif isinstance(value, tuple):
            text = ", ".join(map(str, value))
        else:
            text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        shown[PREFIX + name.upper()] = text
    return shown
