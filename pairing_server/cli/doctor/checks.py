"""The checks of `doctor` beside its steps: risky settings, the database, and the connection to the server.

A finding is no failure. It names the problem and the remedy, and holds no secret.
"""

from __future__ import annotations

import asyncio
import math
import resource
import shutil
import socket
import ssl
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from pairing_server.audit.seals import SealKey, Trusted, format_key, trusted_of
from pairing_server.cli.epilog import document
from pairing_server.client import PairingClient, ServerError
from pairing_server.config import SEAL_KEY_FILE, SETTINGS, Configuration, credential_folders, settings_file
from pairing_server.db import endpoints, migrations
from pairing_server.db.database import CONNECT_TIMEOUT, Database
from pairing_server.db.endpoints import PoolerError
from pairing_server.db.errors import readiness_reason
from pairing_server.errors import Unavailable
from pairing_server.security.addresses import is_loopback, is_unspecified
from pairing_server.security.keys import SigningKey

# By the frequency of its characters; 32 random bytes in Base64 have about 200.
MIN_SECRET_BITS = 100
MIN_OPEN_FILES = 4096
MIN_FREE_BYTES = 1024**3
MAX_CLOCK_SKEW = timedelta(seconds=5)
MIN_CERTIFICATE_LIFE = timedelta(days=14)
SLOW_REQUEST_SECONDS = 0.3


class Finding(NamedTuple):
    problem: str
    remedy: str


def check_configuration(config: Configuration, environ: Mapping[str, str]) -> list[Finding]:
    """What is wrong or risky in the configuration and on this machine."""
    return [*_secrets(config, environ), *_access(config), *_machine(config)]


def _secrets(config: Configuration, environ: Mapping[str, str]) -> Iterator[Finding]:
    for key in config.jwt_keys:
        if is_weak(key):
            yield Finding(
                f"The secret of the signing key {key.kid!r} can be guessed: it looks written by hand.",
                "Make another: pairing-server keys rotate, or openssl rand -base64 48.",
            )
    path = settings_file(environ)
    if path.is_file() and path.stat().st_mode & 0o044:
        text = path.read_text(encoding="utf-8", errors="replace")
        if any(f"\n{setting.variable}=" in f"\n{text}" for setting in SETTINGS if setting.secret):
            yield Finding(
                f"{path} holds secrets and can be read by others.",
                f"chmod 600 {path}, or put them into credential files ({document('docs/operations.md, Settings')}).",
            )
    others = 0o004 if config.data_dir_group else 0o044
    secret = {setting.name.replace("_", "-") for setting in SETTINGS if setting.secret}
    for folder in credential_folders(environ):
        for file in folder.iterdir():
            if file.name in secret and file.stat().st_mode & others:
                yield Finding(f"{file} can be read by others.", f"chmod 600 {file}")


def is_weak(key: SigningKey) -> bool:
    """Whether the secret can be guessed, by the frequency of its characters and by common words."""
    counts, size = Counter(key.secret), len(key.secret)
    bits = -sum(count * math.log2(count / size) for count in counts.values())
    words = (b"secret", b"password", b"changeme", b"change-me", b"example", b"12345678")
    return bits < MIN_SECRET_BITS or any(word in key.secret.lower() for word in words)


def _access(config: Configuration) -> Iterator[Finding]:
    public = urlsplit(config.public_url)
    local = is_loopback(public.hostname or "")
    if wide := [str(network) for network in config.trusted_proxies if network.prefixlen < 8]:
        yield Finding(
            f"Forwarding headers are believed from almost everywhere ({', '.join(wide)}): a client can claim any address.",
            "Set PAIRING_TRUSTED_PROXIES to the addresses of your proxies.",
        )
    if any(opaque in str(config.allowed_origins).split(", ") for opaque in ("null", "file://")):
        yield Finding(
            "Pages without an origin of their own (null, file://) are let in: every sandboxed frame of every site is one.",
            "Take null and file:// out of PAIRING_ALLOWED_ORIGINS, unless one of your apps needs them.",
        )
    if public.scheme == "http" and not local:
        yield Finding(
            "The public URL is http: tokens and codes can be read on the way.",
            "Put a proxy that speaks TLS before the server (deploy/nginx, deploy/caddy), and https:// into PAIRING_PUBLIC_URL.",
        )
    if not local and is_loopback(config.host) and not config.trusted_proxies:
        yield Finding(
            "Clients come through a proxy that is not trusted: all seem to have its address, and share its limits.",
            "Set PAIRING_TRUSTED_PROXIES to the proxy's address, for example 127.0.0.1.",
        )
    if not is_loopback(config.host) and (local or is_unspecified(public.hostname or "")):
        yield Finding(
            f"The server listens on {config.host}, but the public URL is {config.public_url}: pages that are opened by"
            " another name get 403 ORIGIN_NOT_ALLOWED, and no phone can follow the QR code.",
            f"Set PAIRING_PUBLIC_URL to the URL that people open, such as http://{socket.gethostname()}:{config.port}.",
        )
    if config.registration == "open" and (not local or config.trusted_proxies):
        yield Finding(
            "Anyone may register an account.", "Set PAIRING_REGISTRATION=closed, unless that is wanted."
        )
    if (config.guest_pairing or config.redeem_policy == "any_user") and config.max_live_codes > 1000:
        yield Finding(
            f"A guessed code admits a stranger, and up to {config.max_live_codes} codes may be live to be guessed.",
            "Lower PAIRING_MAX_LIVE_CODES, or set PAIRING_REDEEM_POLICY=same_user"
            f" ({document('docs/protocol.md, Security considerations')}).",
        )


def _machine(config: Configuration) -> Iterator[Finding]:
    # The server raises the other limit to this one.
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < MIN_OPEN_FILES:
        yield Finding(
            f"A process may have {files} files open here; each connection is one.",
            "Raise the hard limit: LimitNOFILE= in the unit, or ulimit -Hn, before the server starts.",
        )
    if config.data_dir.exists() and (free := shutil.disk_usage(config.data_dir).free) < MIN_FREE_BYTES:
        yield Finding(
            f"{config.data_dir} has only {free // 1024**2} MiB left.",
            "Free some space: without it the database stops.",
        )


# What to do, by the reason that /readyz gives as well.
_WHEN_UNUSABLE = {
    "database_read_only": "A standby answers, or default_transaction_read_only is on. Name the server that takes writes in"
    " PAIRING_DATABASE_URL, or all of them: postgresql://…@db1,db2/name.",
    "database_disk_full": "Free some space on its disk.",
    "database_full": "It has no connection left: raise its max_connections, or see in pg_stat_activity who has them.",
    "database_busy": "All connections are in use: look for long statements in pg_stat_activity.",
    "database_refused": "It refuses the login: check the role, the password and the name of the database in PAIRING_DATABASE_URL.",
}


async def check_database(config: Configuration) -> list[Finding]:
    """Whether the database of PAIRING_DATABASE_URL answers, takes writes, has this release's schema, and agrees on the time."""
    if config.database_url is None:
        return []
    database = Database(config.database_url)
    try:
        await database.ready()
        async with database.direct() as direct:
            there = await migrations.state(direct.driver)
            now = await direct.driver.fetchval("SELECT clock_timestamp()")
            keys = await direct.driver.fetch(_SEAL_KEYS) if there.suits else []
    except Unavailable as error:
        return [
            Finding(
                f"The database cannot be used: {error.text} ({readiness_reason(error)})",
                _WHEN_UNUSABLE.get(readiness_reason(error), "Is it running? Check PAIRING_DATABASE_URL."),
            )
        ]
    except PoolerError as error:
        return [Finding(str(error), "Change PAIRING_DATABASE_URL, or the pooler.")]
    finally:
        await database.close()
    return [
        *_clock_skew("The database's clock", now),
        *_schema(there),
        *_seal_keys(config, {bytes(row["public_key"]): row["seal_no"] for row in keys}),
        *await _hosts(config.database_url),
    ]


# The keys of the newest seals, and the last seal of each.
_SEAL_KEYS = """SELECT public_key, max(seal_no) AS seal_no
    FROM (SELECT public_key, seal_no FROM audit_seals ORDER BY seal_no DESC LIMIT 1000) AS newest GROUP BY public_key"""


def _own_seal_key(config: Configuration) -> Trusted:
    """The key that is set, else the one that was made in the data directory, if it can be read."""
    key = config.audit_seal_key
    if key is None:
        try:
            key = SealKey.parse((config.data_dir / SEAL_KEY_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
    return {key.public: None}


def _seal_keys(config: Configuration, found: Mapping[bytes, int]) -> Iterator[Finding]:
    """Keys of other servers, or of one that should not seal."""
    trusted = {**_own_seal_key(config), **trusted_of(config.audit_trusted_keys)}
    for key, last in found.items():
        known = trusted.get(key, 0)
        right = known is None or last <= known
        if not right:
            yield Finding(
                f"The audit log has seals up to {last} of a key that this server does not trust: {format_key(key)}.",
                "Give all servers the same audit-seal-key, or list the key in PAIRING_AUDIT_TRUSTED_KEYS"
                f" ({document('docs/audit.md, Keys that are trusted')}).",
            )


async def _hosts(url: str) -> list[Finding]:
    """Those of several database hosts that cannot be reached."""
    known = endpoints.Endpoints(url, timeout=CONNECT_TIMEOUT)
    return [
        Finding(
            f"The database's host {place} cannot be reached: after a failover to it nothing would work.",
            "Is it running, and may this machine connect to it? If it is gone for good, take it out of PAIRING_DATABASE_URL.",
        )
        for place in (await known.absent() if len(known.places) > 1 else ())
    ]


def _schema(there: migrations.State) -> list[Finding]:
    if there.revision == migrations.head():
        return []
    if not there.newer:
        problem = (
            f"The database is at revision {there.revision or 'none'}, this release needs {migrations.head()}."
        )
        return [Finding(problem, "pairing-server migrate")]
    if there.suits:
        problem = (
            f"The database is at revision {there.revision}, which is newer than this release's ({migrations.head()}) and works"
            f" with releases from {there.works_with} on, so with this one."
        )
        return [Finding(problem, "Nothing for now; install the newer release when you can.")]
    return [Finding(there.refusal, f"See {document('docs/operations.md, Going back')}.")]


def _clock_skew(whose: str, other: datetime) -> Iterator[Finding]:
    skew = abs(other - datetime.now(UTC))
    if skew > MAX_CLOCK_SKEW:
        yield Finding(
            f"{whose} and this machine's differ by {skew.total_seconds():.0f} s: tokens and codes seem to be too old, or not valid yet.",
            "Let both be set by NTP: timedatectl set-ntp true.",
        )


async def check_connection(client: PairingClient) -> list[Finding]:
    """The client's address as the server sees it, clock, latency and certificate. Raises ClientError."""
    answer = await client.call("GET", "/api/logins")
    [own] = [login for login in answer.get("logins", []) if login.get("current")]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        await client.healthz()
        times.append(time.perf_counter() - began)
    latency = statistics.median(times)
    found = [
        *_address(client.url, str(own.get("address"))),
        *_clock_skew("The server's clock", datetime.fromisoformat(own["seen_at"])),
    ]
    if latency > SLOW_REQUEST_SECONDS:
        found.append(
            Finding(
                f"A request takes {latency * 1000:.0f} ms there and back.",
                "From here that may be the network. From the server's own machine, look at its load and at the proxy.",
            )
        )
    return [*found, *await _own_pages(client), *await _certificate(client.url)]


async def _own_pages(client: PairingClient) -> list[Finding]:
    """Whether pages that are opened at this URL may use the server."""
    parts = urlsplit(client.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    try:
        await client.call("POST", "/api/auth/login", {}, headers={"Origin": origin})
    except ServerError as error:
        if error.code == "ORIGIN_NOT_ALLOWED":
            return [
                Finding(
                    f"Pages opened at {origin} get 403 ORIGIN_NOT_ALLOWED: the server does not know that address as its own.",
                    f"Set PAIRING_PUBLIC_URL={client.url}, or add {origin} to PAIRING_ALLOWED_ORIGINS.",
                )
            ]
    return []


def _address(url: str, seen: str) -> Iterator[Finding]:
    host = urlsplit(url).hostname or ""
    if is_loopback(seen) and not is_loopback(host):
        yield Finding(
            f"The server saw this client as {seen}, which is the proxy's address: it does not trust the proxy, or the proxy"
            " says nothing of the client.",
            "Set PAIRING_TRUSTED_PROXIES to the proxy's address, and let the proxy send X-Forwarded-For (deploy/nginx, deploy/caddy).",
        )


async def _certificate(url: str) -> list[Finding]:
    parts = urlsplit(url)
    if parts.scheme != "https":
        return []
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(parts.hostname, parts.port or 443, ssl=ssl.create_default_context()), 10
        )
    except (OSError, TimeoutError):
        return []  # the steps have reported it
    certificate = writer.get_extra_info("peercert")
    writer.close()
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    left = ends - datetime.now(UTC)
    if left > MIN_CERTIFICATE_LIFE:
        return []
    return [Finding(f"The certificate ends in {max(0, left.days)} days, on {ends:%Y-%m-%d}.", "Renew it.")]


async def address_seen(client: PairingClient) -> str:
    """A sentence: the client's address as the server sees it, and why. Raises ClientError."""
    answer = await client.call("GET", "/api/logins")
    address = next((login.get("address") for login in answer.get("logins", []) if login.get("current")), None)
    host = urlsplit(client.url).hostname or ""
    direct = is_loopback(host) or address in _own_addresses(host)
    why = (
        "as this machine's, directly or through a proxy that it trusts"
        if direct
        else "as something on the way forwards it"
    )
    return f"The server saw this client as {address}: {why}."


def _own_addresses(host: str) -> set[str]:
    """This machine's address on the route to the host."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            return {str(probe.getsockname()[0])}
    except OSError:
        return set()
