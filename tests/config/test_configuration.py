"""Every setting: its default, the texts that it takes and refuses, how it is shown, what depends on others."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import MISSING, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

import pairing_server
from pairing_server.audit.seals import SealKey, TrustedKey
from pairing_server.config import NAMES, SETTINGS, ConfigurationError, effective, load
from pairing_server.config.setting import Setting
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.security.issuers import Issuer
from pairing_server.security.keys import SigningKey
from pairing_server.security.limits import Rate
from pairing_server.security.origins import Origins
from pairing_server.services.rules import PairingRules
from tests.config.given import SECRET, URL, configuration, faults, variable

PACKAGE = Path(pairing_server.__file__).parent
SEED = "c2VlZCBvZiAzMiBieXRlcywgYXMgbG9uZyBhcyBpdCE="
ISSUER = '{"issuer": "https://id.example", "audience": "a", "algorithms": ["RS256"], "jwks": "/k.json"}'

# The settings whose default does not depend on anything.
PLAIN = [setting for setting in SETTINGS if not setting.default_text]
# name: (a good text, its value, bad texts, what the error says was expected)
TEXTS: dict[str, tuple[str, Any, tuple[str, ...], str]] = {
    "host": ("::1", "::1", ("a b", "http://x", "a/b"), "an address or a host name"),
    "port": ("0", 0, ("-1", "65536", "eighty", "٨٠", "1.5"), "a whole number from 0 to 65535"),
    "public_url": (
        "https://pair.example/",
        "https://pair.example",
        ("pair.example", "ftp://pair.example", "https://", "https:pair", "https://x:port"),
        "a URL that begins with http:// or https://",
    ),
    "database_url": (
        URL,
        URL,
        (
            "mysql://x/y",
            "postgresql:name",
            "db.example",
            f"postgresql://bob:{SECRET}@db:port/name",
            f"postgresql://bob:{SECRET}@db:5432,db2:port/name",
            f"postgresql://bob:{SECRET}@db:5432,/name",
        ),
        "a URL that begins with postgresql:// or postgres://",
    ),
    "database_connect_timeout": ("10", 10, ("0", "301", "soon"), "a whole number from 1 to 300"),
    "database_password_file": ("/run/password", Path("/run/password"), (), ""),
    "database_password_command": ("print-token --for $PGUSER", "print-token --for $PGUSER", (), ""),
    "data_dir": ("/var/lib/x", Path("/var/lib/x"), (), ""),
    "data_dir_group": ("true", True, ("maybe",), "true or false"),
    "migrate_database_url": (
        URL,
        URL,
        ("mysql://x/y", f"postgresql://bob:{SECRET}@db:port/name"),
        "a URL that begins with postgresql:// or postgres://",
    ),
    "jwt_keys": (
        f"new:{SECRET},old:{'o' * 32}",
        (SigningKey("new", SECRET.encode()), SigningKey("old", b"o" * 32)),
        (SECRET, "k:short", f"k:{SECRET},k:{SECRET}", f"a b:{SECRET}"),
        "",
    ),
    "issuers": (
        f"[{ISSUER}]",
        (Issuer("https://id.example", "a", ("RS256",), "/k.json"),),
        ("{", "{}", '[{"issuer": "x"}]', f"[{ISSUER}, {ISSUER}]", "[" * 5000),
        "",
    ),
    "registration": ("Closed", "closed", ("ajar",), "one of open, closed"),
    "redeem_policy": ("any_user", "any_user", ("nobody",), "one of same_user, any_user"),
    "guest_pairing": ("Yes", True, ("maybe", "2"), "true or false"),
    "demo": ("no", False, ("perhaps",), "true or false"),
    "allowed_origins": (
        "https://a.example, https://*.b.example,",
        Origins.parse(["https://a.example", "https://*.b.example"]),
        ("*", "a.example", "https://a.example/"),
        "",
    ),
    "trusted_proxies": (
        "10.0.0.0/8, 2001:db8::1",
        (ip_network("10.0.0.0/8"), ip_network("2001:db8::1")),
        ("10.0.0.1/8", "0.0.0.0/0", "proxy"),
        "",
    ),
    "code_ttl": ("1", 1, ("0", "601", "5s"), "a whole number from 1 to 600"),
    "reconnect_grace": ("86400", 86400, ("0", "86401"), "a whole number from 1 to 86400"),
    "ws_token_ttl": ("60", 60, ("0", "86401"), "a whole number from 1 to 86400"),
    "ws_token_single_use": ("true", True, ("maybe",), "true or false"),
    "codes_per_user": ("1", 1, ("0", "many"), "a whole number from 1 to 1000000"),
    "max_live_codes": ("900000", 900_000, ("0", "1000001"), "a whole number from 1 to 1000000"),
    "code_rate": ("7/60", Rate(7, 60), ("7", "0/60", "7/0", "7/86401", "٧/60"), "N/seconds"),
    "code_rate_address": ("7/60", Rate(7, 60), ("-7/60", "7/60/1"), "N/seconds"),
    "redeem_alarm": ("7/60", Rate(7, 60), ("7", "0/60"), "N/seconds"),
    "redeem_failures": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "redeem_failures_daily": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "redeem_failures_address": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "login_failures": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "login_failures_address": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "login_rate": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "login_rate_address": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "logout_rate": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "register_rate_address": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "ws_token_rate": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "connect_rate": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "redeem_lock": ("60, 90", (60, 90), ("0", "86401", "1h", ","), "seconds from 1 to 86400"),
    "redeem_lock_address": ("60, 90", (60, 90), ("0", "86401", "1h", ","), "seconds from 1 to 86400"),
    "service_rate": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "ping_rate": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "fragments": ("7", 7, ("0", "much"), "a whole number from 1"),
    "refusal_rate": ("7", 7, ("0", "much"), "a whole number from 1"),
    "refusal_burst": ("7", 7, ("0", "much"), "a whole number from 1"),
    "identify_timeout": ("7", 7, ("0", "much"), "a whole number from 1"),
    "message_size": ("7", 7, ("0", "much"), "a whole number from 1"),
    "audio_size": ("7", 7, ("0", "much"), "a whole number from 1"),
    "control_size": ("7", 7, ("0", "much"), "a whole number from 1"),
    "frame_size": ("2000000", 2_000_000, ("0", "much"), "a whole number from 1"),
    "settings_keys": ("7", 7, ("0", "much"), "a whole number from 1"),
    "nesting": ("7", 7, ("0", "much"), "a whole number from 1"),
    "queue_pause": ("7", 7, ("0", "much"), "a whole number from 1"),
    "queue_size": ("2000000", 2_000_000, ("0", "much"), "a whole number from 1"),
    "queue_age": ("7", 7, ("0", "much"), "a whole number from 1"),
    "history_count": ("7", 7, ("0", "much"), "a whole number from 1"),
    "history_size": ("7", 7, ("0", "much"), "a whole number from 1"),
    "body_size": ("7", 7, ("0", "much"), "a whole number from 1"),
    "header_size": ("7", 7, ("0", "much"), "a whole number from 1"),
    "header_timeout": ("7", 7, ("0", "much"), "a whole number from 1"),
    "body_timeout": ("7", 7, ("0", "much"), "a whole number from 1"),
    "idle_timeout": ("7", 7, ("0", "much"), "a whole number from 1"),
    "read_timeout": ("7", 7, ("0", "much"), "a whole number from 1"),
    "message_rate": ("5", 5, ("0",), "a whole number from 1"),
    "message_burst": ("5", 5, ("0",), "a whole number from 1"),
    "audio_rate": ("5", 5, ("0",), "a whole number from 1"),
    "audio_bytes_rate": ("5", 5, ("512K",), "a whole number from 1"),
    "audio_bytes_burst": ("5", 5, ("0",), "a whole number from 1"),
    "frame_rate": ("5", 5, ("0",), "a whole number from 1"),
    "join_rate": ("7/60", Rate(7, 60), ("often",), "N/seconds"),
    "handshake_failures": ("7/60", Rate(7, 60), ("20",), "N/seconds"),
    "connections_per_address": ("5", 5, ("0",), "a whole number from 1"),
    "http_connections_per_address": ("5", 5, ("0",), "a whole number from 1"),
    "connections_per_user": ("5", 5, ("0",), "a whole number from 1"),
    "audit_seal_key": (
        f"ed25519:{SEED}",
        SealKey.parse(SEED),
        ("ed25519:", "short", SEED[:-4], f"rsa:{SEED}"),
        "ed25519: and 32 bytes in base64",
    ),
    "audit_trusted_keys": (
        f"ed25519:{SEED}, {SEED}@1204",
        (TrustedKey(b64decode(SEED)), TrustedKey(b64decode(SEED), 1204)),
        (
            "ed25519:",
            f"ed25519:{SEED}@",
            f"ed25519:{SEED}@-1",
            f"{SEED}@٣",
            f"{SEED}@{'9' * 19}",
            f"{SEED}@12@13",
        ),
        "",
    ),
    "audit_seal_copy": (
        "https://witness.example/seals",
        "https://witness.example/seals",
        ("ftp://witness.example", "https://"),
        "a URL that begins with https:// or http://",
    ),
    "audit_retention": ("30", 30, ("29", "a year"), "a whole number from 30 to 36500"),
    "audit_export_dir": ("/var/lib/x", Path("/var/lib/x"), (), ""),
    "log_format": ("TEXT", "text", ("xml",), "one of text, json"),
    "log_level": ("DEBUG", "debug", ("loud",), "one of debug, info, warning, error"),
    "traces": ("on", True, ("otlp", "2"), "true or false"),
}


def test_the_table_above_has_every_setting() -> None:
    assert set(map(variable, TEXTS)) == set(NAMES), "TEXTS needs a row for each setting, and no other"


def test_every_setting_is_used() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    unused = [s.name for s in SETTINGS if not re.search(rf"\b(config|self|new|ready)\.{s.name}\b", sources)]
    assert unused == []


@pytest.mark.parametrize("setting", PLAIN, ids=lambda setting: setting.name)
def test_without_a_value_the_declared_default_is_in_effect(setting: Setting[Any]) -> None:
    assert getattr(configuration({}), setting.name) == setting.default


@pytest.mark.parametrize("setting", PLAIN, ids=lambda setting: setting.name)
def test_a_default_as_it_is_documented_can_be_set(setting: Setting[Any]) -> None:
    text = setting.text(setting.default)
    assert getattr(configuration({setting.variable: text}), setting.name) == setting.default


@pytest.mark.parametrize("name", TEXTS)
def test_a_good_value_is_taken(name: str) -> None:
    text, value, *_ = TEXTS[name]
    assert getattr(configuration({variable(name): text}), name) == value


@pytest.mark.parametrize(("name", "text"), [(name, bad) for name, row in TEXTS.items() for bad in row[2]])
def test_a_bad_value_stops_the_start_by_name_with_what_was_expected(name: str, text: str) -> None:
    [fault] = faults({variable(name): text})
    assert fault.startswith(f"{variable(name)}: ")
    expected = TEXTS[name][3]
    assert not expected or f"expected {expected}" in fault
    assert SECRET not in fault


def test_the_data_directory_is_data_in_the_working_directory() -> None:
    assert configuration({}).data_dir == Path.cwd() / "data"


def test_a_log_that_is_not_on_a_terminal_is_json() -> None:
    assert configuration({}).log_format == "json"


def test_a_database_may_have_several_hosts() -> None:
    for hosts in ("db1,db2", "db1:5432,db2:5433", "[::1]:5432,db2"):
        url = f"postgresql://bob:{SECRET}@{hosts}/name?target_session_attrs=read-write"
        assert configuration({"PAIRING_DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    ("host", "database", "registration"),
    [
        ("127.0.0.1", "", "open"),
        ("127.8.8.8", "", "open"),
        ("localhost", "", "open"),
        ("::1", "", "open"),
        ("0.0.0.0", "", "closed"),
        ("::", "", "closed"),
        ("192.0.2.1", "", "closed"),
        ("pair.example", "", "closed"),
        ("localhost.example", "", "closed"),
        ("127.0.0.1", URL, "closed"),
    ],
)
def test_registration_is_open_only_for_oneself(host: str, database: str, registration: str) -> None:
    environ = {"PAIRING_HOST": host, "PAIRING_DATABASE_URL": database}
    assert configuration(environ).registration == registration
    for chosen in ("open", "closed"):
        assert configuration({**environ, "PAIRING_REGISTRATION": chosen}).registration == chosen


@pytest.mark.parametrize("registration", ["open", "closed"])
def test_the_demonstration_is_there_where_anyone_may_register(registration: str) -> None:
    environ = {"PAIRING_REGISTRATION": registration}
    assert configuration(environ).demo is (registration == "open")
    assert configuration({**environ, "PAIRING_DEMO": "true"}).demo is True
    assert configuration({**environ, "PAIRING_DEMO": "false"}).demo is False


def test_the_demonstration_is_not_there_for_everybody_by_default() -> None:
    assert configuration({"PAIRING_HOST": "0.0.0.0"}).demo is False


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/#x",
        "https://a.example/p?x=1",
        "https://u:p@a.example",
        "https://a.example//p",
    ],
)
def test_a_public_url_is_one_that_paths_can_be_added_to(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected scheme, host and perhaps a port and a path"):
        configuration({"PAIRING_PUBLIC_URL": text})


def test_the_public_url_may_have_a_path() -> None:
    url = "https://a.example/pairing"
    assert configuration({"PAIRING_PUBLIC_URL": f"{url}/"}).public_url == url


def test_the_public_url_follows_host_and_port() -> None:
    assert configuration({"PAIRING_PORT": "80"}).public_url == "http://127.0.0.1:80"
    assert configuration({"PAIRING_HOST": "::1"}).public_url == "http://[::1]:8089"


def test_a_terminal_gets_text() -> None:
    assert load({}, {}, terminal=True, dotenv=Path("/none")).log_format == "text"
    assert load({"PAIRING_LOG_FORMAT": "json"}, {}, terminal=True, dotenv=Path("/none")).log_format == "json"


@pytest.mark.parametrize("receiver", [PairingRules, ConnectionLimits])
def test_what_is_a_setting_has_no_second_default(receiver: type[Any]) -> None:
    with_default = {field.name for field in fields(receiver) if field.default is not MISSING}
    assert with_default.isdisjoint(setting.name for setting in SETTINGS)


def test_services_and_relay_get_what_was_set() -> None:
    numbers = {
        name: str(number)
        for number, name in enumerate(("code_ttl", "reconnect_grace", "codes_per_user", "max_live_codes"), 5)
    } | {"join_rate": "3/20", "message_rate": "11", "redeem_policy": "any_user", "guest_pairing": "true"}
    found = configuration({variable(name): value for name, value in numbers.items()})
    rules, limits = found.pairing_rules, found.connection_limits
    assert (rules.code_ttl, rules.reconnect_grace, rules.codes_per_user, rules.max_live_codes) == (5, 6, 7, 8)
    assert (rules.same_user, rules.guests) == (False, True)
    assert (limits.reconnect_grace, limits.message_rate) == (6, 11)
    assert (limits.join_count, limits.join_seconds) == (3, 20)


def test_secrets_are_neither_shown_nor_in_the_representation() -> None:
    found = configuration({"PAIRING_DATABASE_URL": URL, "PAIRING_JWT_KEYS": f"k1:{SECRET}"})
    shown = effective(found)
    assert tuple(shown) == NAMES
    assert shown["PAIRING_DATABASE_URL"] == shown["PAIRING_JWT_KEYS"] == "(set, not shown)"
    assert SECRET not in str(shown) + repr(found)
    bare = effective(configuration({}))
    assert (bare["PAIRING_DATABASE_URL"], bare["PAIRING_JWT_KEYS"]) == ("(embedded)", "(generated)")
