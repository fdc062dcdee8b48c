"""The public keys of one foreign issuer: parsing a JWK Set and keeping it fresh.

A set is read from a file or a URL. A failed refresh never replaces good keys: they are used for up to a day while the
provider is down. Tokens cannot cause more than one fetch a minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pairing_server.security.jws import PublicKey

# MIN_GAP < FRESH < KEPT: a set that has gone stale may be fetched at once, and is used meanwhile.
FRESH = timedelta(minutes=5)
MIN_GAP = timedelta(minutes=1)
KEPT = timedelta(hours=24)
FETCH_TIMEOUT_S = 10
MAX_SET_BYTES = 64 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2048

# The public members of a JWK. The members of a private key, put there by mistake, are not read.
_PUBLIC_MEMBERS = ("kty", "n", "e", "crv", "x", "y")
_KEY_TYPES = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

OnRefresh = Callable[[str, Sequence[str], Sequence[str], str | None], None]


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and the one algorithm that it may be used with."""

    key: PublicKey
    algorithm: str


def parse_jwks(body: bytes) -> Mapping[str | None, VerificationKey]:
    """The usable keys by kid, without those for other uses. Raises ValueError if there is none."""
    if len(body) > MAX_SET_BYTES:
        raise ValueError(f"the key set is larger than {MAX_SET_BYTES} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the key set is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"the key set must have a list `keys` of at most {MAX_KEYS}")
    keys: dict[str | None, VerificationKey] = {}
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        key = _verification_key(entry) if isinstance(entry, dict) else None
        if key is not None and (kid is None or isinstance(kid, str)):
            keys.setdefault(kid, key)
    if not keys:
        raise ValueError("the key set has no key for RS256, ES256 or EdDSA")
    return keys


def _verification_key(entry: Mapping[str, object]) -> VerificationKey | None:
    kty, crv = entry.get("kty"), entry.get("crv")
    algorithm = _KEY_TYPES.get((str(kty), None if kty == "RSA" else str(crv)))
    operations = entry.get("key_ops", ["verify"])
    if (
        algorithm is None
        or entry.get("alg", algorithm) != algorithm
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    members = {name: entry[name] for name in _PUBLIC_MEMBERS if name in entry}
    try:
        key = jwt.PyJWK(members, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return VerificationKey(key, algorithm) if _is_strong(key) else None


def _is_strong(key: object) -> bool:
    if isinstance(key, RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    if isinstance(key, EllipticCurvePublicKey):
        return isinstance(key.curve, SECP256R1)
    return isinstance(key, Ed25519PublicKey)


class Source(Protocol):
    """Where a key set comes from. A `cheap` source is read every time."""

    cheap: bool

    async def read(self) -> bytes | None:
        """The set, or None if it is what the last read gave. Raises what the transport raises."""
        ...


class FileSource:
    """A file, read again when it changes, in a thread because the disk may be slow."""

    cheap = True

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int, int] | None = None

    async def read(self) -> bytes | None:
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes | None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return None
            with self._path.open("rb") as file:
                body = file.read(MAX_SET_BYTES + 1)
        except OSError:
            # The file that comes back is read, also one with the old time.
            self._stamp = None
            raise
        self._stamp = stamp
        return body


class UrlSource:
    """A URL, fetched by the function of the composition root."""

    cheap = False

    def __init__(self, url: str, fetch: Callable[[str], Awaitable[bytes]]) -> None:
        self._url = url
        self._fetch = fetch

    async def read(self) -> bytes | None:
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            return await self._fetch(self._url)


class KeyCache:
    """One issuer's keys. Callers that need a refresh at the same time share one."""

    def __init__(self, issuer: str, source: Source, on_refresh: OnRefresh | None) -> None:
        self._issuer = issuer
        self._source = source
        self._on_refresh = on_refresh
        self._keys: Mapping[str | None, VerificationKey] = {}
        self._good_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._error: str | None = None
        self._refresh: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, now: datetime) -> VerificationKey | None:
        """The key of that name (without a name: the only key), or None."""
        stale = not _within(self._good_at, now, FRESH)
        wanted = self._look_up(kid, now)
        if self._source.cheap or ((stale or wanted is None) and not _within(self._tried_at, now, MIN_GAP)):
            self._start(now)
        # A provider that is down is asked in the background: callers whose key is known do not wait.
        if self._refresh is not None and (
            wanted is None or (stale and self._error is None) or self._source.cheap
        ):
            await asyncio.shield(self._refresh)
            wanted = self._look_up(kid, now)
        return wanted

    async def close(self) -> None:
        """Cancel a refresh that is running."""
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)

    def _look_up(self, kid: str | None, now: datetime) -> VerificationKey | None:
        if self._good_at is None or now - self._good_at >= KEPT:
            return None
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _start(self, now: datetime) -> None:
        if self._refresh is None:
            self._tried_at = now
            self._refresh = asyncio.create_task(self._run(now))

    async def _run(self, now: datetime) -> None:
        try:
            body = await self._source.read()
            fresh = None if body is None else parse_jwks(body)
        except (
            Exception
        ) as error:  # a fetch function may raise anything, and the known keys must go on working
            self._report(self._keys, f"{type(error).__name__}: {error}"[:200])
        else:
            self._take(fresh, now)
        finally:
            self._refresh = None

    def _take(self, fresh: Mapping[str | None, VerificationKey] | None, now: datetime) -> None:
        if fresh is not None:
            self._good_at = now
            self._report(fresh, None)
        elif self._error is None:
            # Unchanged and good. An unchanged broken file stays an error, and the old keys age.
            self._good_at = now

    def _report(self, keys: Mapping[str | None, VerificationKey], error: str | None) -> None:
        # The keys are compared, not only their names: a new key may have an old name.
        added = sorted(kid or "" for kid, key in keys.items() if self._keys.get(kid) != key)
        removed = sorted(kid or "" for kid, key in self._keys.items() if keys.get(kid) != key)
        changed = bool(added or removed) or error != self._error
        self._keys, self._error = keys, error
        if changed and self._on_refresh is not None:
            self._on_refresh(self._issuer, added, removed, error)


def _within(instant: datetime | None, now: datetime, span: timedelta) -> bool:
    # Callers that wait together have slightly different times, so `now` may be a little older. A much older time
    # means that the clock was set back, which must not delay a refresh until the clock has caught up.
    return instant is not None and -MIN_GAP < now - instant < span
