"""A foreign identity provider: its keys, its key set, its tokens. Nothing here is imported by the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from pairing_server.security.issuers import Issuer

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ISSUER = "https://id.example.com/"
AUDIENCE = "https://pairing.example.com"
URL = "https://id.example.com/jwks.json"

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
_ALGORITHMS = {RSAPrivateKey: "RS256", EllipticCurvePrivateKey: "ES256", Ed25519PrivateKey: "EdDSA"}


def elliptic_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


@cache  # a tenth of a second each
def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    return generate_rsa_key(65537, bits)


def public_jwk(kid: str | None, private: PrivateKey, **members: object) -> dict[str, object]:
    if isinstance(private, RSAPrivateKey):
        jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    elif isinstance(private, EllipticCurvePrivateKey):
        jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, **({} if kid is None else {"kid": kid}), **members}


def algorithm_of(private: PrivateKey) -> str:
    return next(name for kind, name in _ALGORITHMS.items() if isinstance(private, kind))


class Provider:
    """One issuer whose key set is fetched by URL; `down` makes the fetch fail, `hold` makes it wait."""

    def __init__(self, **keys: PrivateKey) -> None:
        self.keys = keys or {"k1": elliptic_key()}
        self.fetches = 0
        self.down = False
        self.answer: bytes | None = None
        self.hold: asyncio.Event | None = None

    def issuer(self, *, jwks: str = URL) -> Issuer:
        return Issuer(ISSUER, AUDIENCE, ("RS256", "ES256", "EdDSA"), jwks)

    def jwks(self) -> bytes:
        return json.dumps({"keys": [public_jwk(kid, key) for kid, key in self.keys.items()]}).encode()

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        self.fetches += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise ConnectionError("the provider is away")
        return self.jwks() if self.answer is None else self.answer

    def token(
        self,
        kid: str | None = "k1",
        *,
        key: PrivateKey | None = None,
        headers: dict[str, object] | None = None,
        now: datetime = NOW,
        **claims: object,
    ) -> str:
        """A good token but for what is given; a claim given as None is left out."""
        private = key or self.keys[kid or "k1"]
        body = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=10)).timestamp()),
            **claims,
        }
        return jwt.PyJWS().encode(
            json.dumps({name: value for name, value in body.items() if value is not None}).encode(),
            private,
            algorithm=algorithm_of(private),
            headers={**({} if kid is None else {"kid": kid}), **(headers or {})},
        )


class News:
    """Keeps the arguments of an `on_refresh` callback."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str], list[str], str | None]] = []

    @property
    def callback(self) -> Callable[..., None]:
        return lambda issuer, added, removed, error: self.told.append((issuer, added, removed, error))
