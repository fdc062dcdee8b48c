"""JSON Web Signatures: the size of a token, its three parts, its JSON and its signature.

`tokens.py` decides what the claims mean and which key may sign them. Claims leave this module only through
`Unverified.verified`; before that, only the issuer can be read.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import HMACAlgorithm

from pairing_server.errors import InvalidToken

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

# What fits an HTTP header (web/http_server.py). Providers put groups into claims, and certificates into headers.
MAX_TOKEN = 16 * 1024
MAX_KID = 256

# The signature may be empty, so that an unsigned token is refused because of its algorithm, not of its form.
_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")

# With any of these a token would have to be read another way. Those that name or hold a key (jku, jwk, x5u, x5c) are
# ignored, as is any other: keys come from the configured issuers only, and nothing that a token names is fetched.
_FORBIDDEN_HEADERS = frozenset({"crit", "b64", "zip"})


class _Hmac(HMACAlgorithm):
    """The library's algorithm, which checks a secret once instead of with each token."""

    def __init__(self) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepare = lru_cache(maxsize=16)(super().prepare_key)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepare(key)


_JWS = jwt.PyJWS(
    algorithms=["RS256", "ES256", "EdDSA"],
    options={"verify_signature": True, "enforce_minimum_key_length": True},
)
_JWS.register_algorithm("HS256", _Hmac())


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token of the right form whose signature is not verified yet."""

    algorithm: object
    type: object
    kid: str | None
    issuer: object
    _token: str = field(repr=False)
    _claims: Mapping[str, object] = field(repr=False)

    def verified(self, key: bytes | PublicKey, algorithms: Sequence[str]) -> Mapping[str, object]:
        """The claims, if `key` signed them with one of `algorithms`. Raises InvalidToken."""
        if self.algorithm not in algorithms:
            raise InvalidToken(reason="alg")
        try:
            _JWS.decode_complete(self._token, key, algorithms=algorithms)
        except jwt.InvalidSignatureError:
            raise InvalidToken(reason="signature") from None
        except jwt.InvalidAlgorithmError:
            raise InvalidToken(reason="alg") from None
        except jwt.PyJWTError:
            raise InvalidToken(reason="malformed") from None
        return self._claims


def parse(token: str) -> Unverified:
    """Parse a token; the work is bounded for any input. Raises InvalidToken."""
    form = _FORM.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if form is None:
        raise InvalidToken(reason="malformed")
    header = _json_object(form[1])
    kid = header.get("kid")
    if not _FORBIDDEN_HEADERS.isdisjoint(header) or not _is_kid(kid):
        raise InvalidToken(reason="malformed")
    claims = _json_object(form[2])
    return Unverified(
        algorithm=header.get("alg"),
        type=header.get("typ"),
        kid=kid if isinstance(kid, str) else None,
        issuer=claims.get("iss"),
        _token=token,
        _claims=claims,
    )


def sign(claims: Mapping[str, object], secret: bytes, *, kid: str, token_type: str) -> str:
    """A token of this server: HS256, with `kid` and `typ` in the header."""
    # Not escaped: otherwise a name in another script would make the token three times as long.
    payload = json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()
    return _JWS.encode(payload, secret, algorithm="HS256", headers={"kid": kid, "typ": token_type})


def _is_kid(kid: object) -> bool:
    return kid is None or (isinstance(kid, str) and 1 <= len(kid) <= MAX_KID)


def _json_object(part: str) -> Mapping[str, object]:
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidToken(reason="malformed") from None
    if not isinstance(value, dict):
        raise InvalidToken(reason="malformed")
    return value


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
