"""The configuration: every setting is one field, whose declaration has its parser, default and explanation.

server/ gives each value to its use; server/reload.py does so again for those that are reloadable.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from pairing_server.audit.seals import SealKey, TrustedKey
from pairing_server.config import parsers
from pairing_server.config.parsers import flag, number, one_of
from pairing_server.config.setting import Setting, declare
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.security.addresses import parse_networks
from pairing_server.security.issuers import Issuer, parse_issuers
from pairing_server.security.keys import SigningKey, parse_keys
from pairing_server.security.limits import Policy, Rate
from pairing_server.security.origins import Origins
from pairing_server.services.local_rates import Rates
from pairing_server.services.rules import AttemptPolicies, PairingRules
from pairing_server.web.http_limits import HTTPLimits

RATE = "N/seconds"
GENERATED = "generated once into the data directory"


def _rate(count: int, seconds: int, meaning: str) -> Rate:
    return declare(Rate.parse, Rate(count, seconds), meaning, unit=RATE, reloadable=True)


def _number(default: int, meaning: str, unit: str, most: int = 10**12, reloadable: bool = True) -> int:
    return declare(number(1, most), default, meaning, unit=unit, reloadable=reloadable)


def _size(kibibytes: int, meaning: str, reloadable: bool = True) -> int:
    return _number(kibibytes * 1024, meaning, "bytes", most=2**30, reloadable=reloadable)


def _locks(*seconds: int, meaning: str) -> tuple[int, ...]:
    return declare(
        parsers.durations,
        seconds,
        f"{meaning}: the first time, the second, and so on; the last repeats",
        unit="seconds, a list",
        reloadable=True,
    )


@dataclass(frozen=True, slots=True)
class Configuration:
    host: str = declare(parsers.host, "127.0.0.1", "the address to listen on")
    port: int = declare(number(0, 65535), 8089, "the port to listen on; 0 takes a free one")
    public_url: str = declare(
        parsers.public_url,
        "",
        "the URL under which clients reach the server, with its path if it has one; for `pairing_uri` and the pages'"
        " `Origin`",
        default_text="from host and port",
        reloadable=True,
    )
    database_url: str | None = declare(
        parsers.database_url,
        None,
        "the database: `postgresql://…` with libpq's parameters, also with several hosts: `postgresql://a:5432,b:5432/name`",
        default_text="none: embedded PostgreSQL",
        unset="(embedded)",
        secret=True,
    )
    migrate_database_url: str | None = declare(
        parsers.database_url,
        None,
        "the same database as the role that owns the tables; for commands: `migrate`, `downgrade`, `backup`, `restore`, `audit rebase`",
        default_text="none: that of `PAIRING_DATABASE_URL`",
        unset="(not set)",
        secret=True,
    )
    database_connect_timeout: int | None = declare(
        number(1, 300),
        None,
        "how long connecting to a host of the database may take; `connect_timeout` in the URL wins",
        unit="seconds",
        default_text="3, for all its hosts together",
    )
    database_password_file: Path | None = declare(
        parsers.absolute_path,
        None,
        "a file with the database's password, read for each new connection",
    )
    database_password_command: str | None = declare(
        str.strip,
        None,
        "a command of the shell that prints the database's password, run for each new connection with `PGHOST`, `PGPORT`, `PGUSER` and `PGDATABASE`",
        default_text="none",
        unset="(not set)",
        secret=True,
    )
    data_dir: Path = declare(
        parsers.path,
        Path("data"),
        "embedded database, generated keys, audit spool",
        default_text="`./data`; `$STATE_DIRECTORY` under systemd",
    )
    data_dir_group: bool = declare(
        flag,
        False,
        "whether a group may read and write the data directory, as on a volume with Kubernetes' `fsGroup`; others never may",
    )
    jwt_keys: tuple[SigningKey, ...] = declare(
        parse_keys,
        (),
        "list of `kid:secret`; the first signs, all verify; each secret at least 32 bytes",
        default_text=GENERATED,
        unset="(generated)",
        secret=True,
        reloadable=True,
    )
    issuers: tuple[Issuer, ...] = declare(
        parse_issuers,
        (),
        "trusted foreign issuers: a JSON list of `{issuer, audience, algorithms, jwks}`, `jwks` being a file or a URL",
        multiline=True,
    )
    registration: str = declare(
        one_of("open", "closed"),
        "",
        "whether strangers may make accounts",
        default_text="`open` with the embedded database on a loopback host, else `closed`",
        reloadable=True,
    )
    redeem_policy: str = declare(
        one_of("same_user", "any_user"),
        "same_user",
        "whom a code admits: `same_user` or `any_user`",
        reloadable=True,
    )
    guest_pairing: bool = declare(
        flag, False, "whether codes are made and redeemed without an access token", reloadable=True
    )
    demo: bool | None = declare(
        flag,
        None,
        "whether the demonstration is served at `/` and `/phone`",
        default_text="`true` where registration is open, else `false`",
    )
    allowed_origins: Origins = declare(
        lambda text: Origins.parse(parsers.items(text)),
        Origins.parse([]),
        "list of web origins that may call the server, besides its own",
        reloadable=True,
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = declare(
        lambda text: parse_networks(parsers.items(text)),
        (),
        "list of addresses or networks whose forwarding headers count",
        reloadable=True,
    )
    code_ttl: int = declare(
        number(1, 600), 300, "how long a code can be redeemed", unit="seconds", reloadable=True
    )
    reconnect_grace: int = declare(
        number(1, 86_400), 300, "how long a member may stay away", unit="seconds", reloadable=True
    )
    ws_token_ttl: int = declare(number(1, 86_400), 3600, "how long a ws token is valid", unit="seconds")
    ws_token_single_use: bool = declare(
        flag, False, "whether a ws token opens one connection only, on whichever server"
    )
    codes_per_user: int = declare(
        number(1, 1_000_000), 3, "pending codes of a user", unit="codes", reloadable=True
    )
    max_live_codes: int = declare(
        number(1, 1_000_000), 50_000, "live codes altogether", unit="codes", reloadable=True
    )
    code_rate: Rate = _rate(5, 300, "codes made, for a user")
    code_rate_address: Rate = _rate(100, 300, "codes made, for an address")
    redeem_alarm: Rate = declare(
        Rate.parse,
        Rate(50, 60),
        "codes that did not work, altogether, until codes of other accounts need the desktop's confirmation",
        unit=RATE,
    )
    redeem_failures: Rate = _rate(10, 900, "codes that did not work, for a user")
    redeem_failures_daily: Rate = _rate(30, 86_400, "the same, over a longer time")
    redeem_lock: tuple[int, ...] = _locks(3600, meaning="how long a user is locked out then")
    redeem_failures_address: Rate = _rate(5, 300, "codes that did not work, for an address")
    redeem_lock_address: tuple[int, ...] = _locks(
        300, 900, 3600, 86_400, meaning="how long an address is locked out then"
    )
    login_failures: Rate = _rate(10, 900, "failed logins, for a username")
    login_failures_address: Rate = _rate(30, 900, "failed logins, for an address")
    login_rate: Rate = _rate(30, 300, "logins with the right password, for a username")
    login_rate_address: Rate = _rate(300, 300, "logins with the right password, for an address")
    logout_rate: Rate = _rate(200, 86_400, "logins ended one by one, for a user")
    register_rate_address: Rate = _rate(30, 900, "accounts made, for an address")
    ws_token_rate: Rate = _rate(300, 3600, "ws tokens made, for a user")
    connect_rate: Rate = _rate(300, 3600, "WebSockets opened, for a user")
    handshake_failures: Rate = _rate(20, 60, "upgrades without a valid token, for an address")
    connections_per_address: int = _number(200, "connections of an address", "at a time")
    connections_per_user: int = _number(10, "connections of a user", "at a time")
    http_connections_per_address: int = _number(
        200,
        "connections of an address that are not WebSockets; an idle one gives way to a new one",
        "at a time",
    )
    message_rate: int = _number(60, "messages, for a connection", "a second")
    message_burst: int = _number(120, "messages, for a connection", "at once")
    audio_rate: int = _number(20, "audio chunks, for a connection", "a second")
    audio_bytes_rate: int = _number(512 * 1024, "audio, for a connection", "bytes a second")
    audio_bytes_burst: int = _number(2 * 1024 * 1024, "audio, for a connection", "bytes at once")
    frame_rate: int = _number(200, "frames of any kind, for a connection", "a second")
    join_rate: Rate = _rate(5, 10, "joins, for a connection")
    service_rate: Rate = _rate(
        20, 10, "`identify`, `unpair`, `refresh_token` and answers to `pairing_request`, for a connection"
    )
    ping_rate: Rate = _rate(20, 10, "protocol pings, for a connection")
    fragments: int = _number(64, "fragments of a message", "at most")
    refusal_rate: int = _number(10, "`RATE_LIMITED` errors sent, for a connection", "a second")
    refusal_burst: int = _number(20, "`RATE_LIMITED` errors sent, for a connection", "at once")
    identify_timeout: int = _number(10, "time to identify or join", "seconds", most=3600)
    message_size: int = _size(64, "a `channel_message`")
    audio_size: int = _size(512, "an `audio_chunk`")
    control_size: int = _size(16, "any other message, and the settings document")
    frame_size: int = _size(1024, "a frame, and a message in fragments")
    settings_keys: int = _number(64, "keys of the settings document", "at most", most=1024)
    nesting: int = _number(16, "nesting of `payload` and `settings`", "levels", most=64)
    queue_pause: int = _size(
        256, "what waits for a connection, until its peer is not read and audio is dropped"
    )
    queue_size: int = _size(1024, "what waits for a connection, until it is closed")
    queue_age: int = _number(
        5, "how long a message waits for a connection, until it is closed", "seconds", 3600
    )
    history_count: int = _number(256, "messages kept for the devices of a channel", "at most", most=100_000)
    history_size: int = _size(1024, "messages kept for the devices of a channel")
    body_size: int = declare(
        number(1, 2**20), 16 * 1024, "the body of an HTTP request", unit="bytes", reloadable=True
    )
    header_size: int = _size(16, "the header of an HTTP request", reloadable=False)
    header_timeout: int = _number(10, "time for the header of an HTTP request", "seconds", 3600)
    body_timeout: int = _number(10, "time for the body of an HTTP request", "seconds", 3600, reloadable=False)
    idle_timeout: int = _number(
        20, "how long an HTTP connection may be idle", "seconds", 3600, reloadable=False
    )
    read_timeout: int = _number(
        30, "how long a client may take nothing of an HTTP answer, until it is closed", "seconds", 3600
    )
    audit_seal_key: SealKey | None = declare(
        SealKey.parse,
        None,
        "the private key that seals the audit log: `ed25519:` and 32 bytes in base64",
        default_text=GENERATED,
        unset="(generated)",
        secret=True,
    )
    audit_trusted_keys: tuple[TrustedKey, ...] = declare(
        lambda text: tuple(TrustedKey.parse(item) for item in parsers.items(text)),
        (),
        "list of public keys of other servers and of former ones, as `audit key` prints them, whose seals `audit verify`"
        " trusts, too; `ed25519:…@N`: up to seal N only",
    )
    audit_seal_copy: str = declare(
        parsers.file_or_url, "", "where each seal is copied to: a file, or a URL that takes a POST"
    )
    audit_retention: int = declare(
        number(30, 36_500),
        400,
        "how long the audit log is kept at least, 30 or more; whole months are dropped",
        unit="days",
    )
    audit_export_dir: Path | None = declare(
        parsers.absolute_path, None, "a folder that months are exported to before they are dropped"
    )
    log_format: str = declare(
        one_of("text", "json"),
        "json",
        "how log lines are written",
        default_text="`text` on a terminal, else `json`",
    )
    log_level: str = declare(
        one_of("debug", "info", "warning", "error"), "info", "the least level that is logged", reloadable=True
    )
    traces: bool = declare(
        flag,
        False,
        "whether spans go to an OpenTelemetry collector (OTLP over HTTP), as the `OTEL_*` of the environment say; needs the extra `otel`",
    )

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
            reconnect_grace=self.reconnect_grace,
            public_url=self.public_url,
            registration_open=self.registration == "open",
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
            service_count=self.service_rate.count,
            service_seconds=self.service_rate.seconds,
            connections_per_address=self.connections_per_address,
            connections_per_user=self.connections_per_user,
            reconnect_grace=self.reconnect_grace,
            ping_count=self.ping_rate.count,
            ping_seconds=self.ping_rate.seconds,
            fragments=self.fragments,
            refusals_rate=self.refusal_rate,
            refusals_burst=self.refusal_burst,
            identify_within=self.identify_timeout,
            control_size=self.control_size,
            message_size=self.message_size,
            audio_size=self.audio_size,
            frame_size=self.frame_size,
            settings_keys=self.settings_keys,
            nesting=self.nesting,
            queue_pause=self.queue_pause,
            queue_size=self.queue_size,
            queue_age=self.queue_age,
            history_count=self.history_count,
            history_size=self.history_size,
        )

    @property
    def attempt_policies(self) -> AttemptPolicies:
        return AttemptPolicies(
            redeem_user=Policy((self.redeem_failures, self.redeem_failures_daily), self.redeem_lock),
            redeem_address=Policy((self.redeem_failures_address,), self.redeem_lock_address),
            login_user=Policy((self.login_failures,)),
            login_address=Policy((self.login_failures_address,)),
            register_address=Policy((self.register_rate_address,)),
        )

    @property
    def local_rates(self) -> Rates:
        return Rates(
            login_user=self.login_rate,
            login_address=self.login_rate_address,
            ws_token=self.ws_token_rate,
            connect=self.connect_rate,
            logout=self.logout_rate,
        )

    @property
    def http_limits(self) -> HTTPLimits:
        return HTTPLimits(
            connections_per_address=self.http_connections_per_address,
            body_size=self.body_size,
            header_size=self.header_size,
            header_timeout=self.header_timeout,
            body_timeout=self.body_timeout,
            idle_timeout=self.idle_timeout,
            read_timeout=self.read_timeout,
        )


SETTINGS: tuple[Setting[Any], ...] = tuple(
    replace(field.metadata["setting"], name=field.name) for field in fields(Configuration)
)
NAMES = tuple(setting.variable for setting in SETTINGS)


def effective(config: Configuration) -> dict[str, str]:
    """Every setting's variable and value as text, secrets masked."""
    return {setting.variable: setting.text(getattr(config, setting.name)) for setting in SETTINGS}
