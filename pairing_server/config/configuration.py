"""The settings there are: names, values, defaults, how each is read from text and shown as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from pairing_server.audit.seals import SealKey
from pairing_server.config import parsers
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.security.addresses import parse_networks
from pairing_server.security.issuers import Issuer, parse_issuers
from pairing_server.security.keys import SigningKey, parse_keys
from pairing_server.security.limits import Rate
from pairing_server.security.origins import Origins
from pairing_server.services.rules import PairingRules

PREFIX = "PAIRING_"


@dataclass(frozen=True, slots=True)
class Configuration:
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
    audit_seal_key: SealKey | None = field(default=None, repr=False)
    audit_seal_copy: str = ""
    audit_retention: int = 400
    audit_export_dir: Path | None = None
    log_format: str = "json"
    log_level: str = "info"
    traces: bool = False

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
    def connection_limits(self) -> ConnectionLimits:
        return ConnectionLimits(
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
        )


READERS: Mapping[str, parsers.Reader] = {
    "host": parsers.host,
    "port": parsers.number(0, 65535),
    "public_url": parsers.url("http", "https"),
    "database_url": parsers.database_url,
    "data_dir": lambda text: Path(text).expanduser(),
    "migrate_database_url": parsers.database_url,
    "jwt_keys": parse_keys,
    "issuers": parse_issuers,
    "registration": parsers.one_of("open", "closed"),
    "redeem_policy": parsers.one_of("same_user", "any_user"),
    "guest_pairing": parsers.flag,
    "demo": parsers.flag,
    "allowed_origins": lambda text: Origins.parse(parsers.items(text)),
    "trusted_proxies": lambda text: parse_networks(parsers.items(text)),
    "code_ttl": parsers.number(1, 600),
    "reconnect_grace": parsers.number(1, 86400),
    "ws_token_ttl": parsers.number(1, 86400),
    "ws_token_single_use": parsers.flag,
    "codes_per_user": parsers.number(1, 1_000_000),
    "max_live_codes": parsers.number(1, 1_000_000),
    "code_rate": Rate.parse,
    "code_rate_address": Rate.parse,
    "redeem_alarm": Rate.parse,
    "message_rate": parsers.number(1, 10_000_000),
    "message_burst": parsers.number(1, 10_000_000),
    "audio_rate": parsers.number(1, 10_000_000),
    "audio_bytes_rate": parsers.number(1, 10**12),
    "audio_bytes_burst": parsers.number(1, 10**12),
    "frame_rate": parsers.number(1, 10_000_000),
    "join_rate": Rate.parse,
    "handshake_failures": Rate.parse,
    "connections_per_address": parsers.number(1, 10_000_000),
    "connections_per_user": parsers.number(1, 10_000_000),
    "audit_seal_key": SealKey.parse,
    "audit_seal_copy": parsers.file_or_url,
    "audit_retention": parsers.number(30, 36_500),
    "audit_export_dir": lambda text: Path(text).expanduser().absolute(),
    "log_format": parsers.one_of("text", "json"),
    "log_level": parsers.one_of("debug", "info", "warning", "error"),
    "traces": parsers.flag,
}

NAMES = tuple(PREFIX + name.upper() for name in READERS)
SECRETS = ("jwt_keys", "database_url", "migrate_database_url", "audit_seal_key")
# What is shown of a secret that is not set, where it is not one that is made.
UNSET = {"database_url": "(embedded)", "migrate_database_url": "(not set)"}


def effective(config: Configuration) -> dict[str, str]:
    """Every setting's name and value as text, secrets masked."""
    return {PREFIX + name.upper(): _shown(name, getattr(config, name)) for name in READERS}


def _shown(name: str, value: Any) -> str:
    if name in SECRETS:
        return "(set, not shown)" if value else UNSET.get(name, "(generated)")
    if name == "issuers":
        return ", ".join(issuer.issuer for issuer in value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
