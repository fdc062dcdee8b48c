"""Tokens as an attacker, or another program, would make them: HS256 by hand, any header, any claims."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

from pairing_server.security.keys import SigningKey
from tests.security.provider import NOW

KEY = SigningKey("now", b"n" * 32)
SECOND = int(NOW.timestamp())


def access_token(
    claims: Mapping[str, object] | None = None,
    *,
    key: SigningKey = KEY,
    headers: Mapping[str, object] | None = None,
    payload: bytes | None = None,
) -> str:
    """A good access token but for what is given; a header or claim given as None is left out."""
    raw = claims_of(**(claims or {})) if payload is None else payload
    return hs256(key.secret, {"kid": key.kid, "typ": "at+jwt", **(headers or {})}, raw)


def hs256(secret: bytes, headers: Mapping[str, object], payload: bytes) -> str:
    header = {name: value for name, value in {"alg": "HS256", **headers}.items() if value is not None}
    signed = f"{base64url(json.dumps(header).encode())}.{base64url(payload)}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64url(signature)}"


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(**claims: object) -> bytes:
    """The claims of a good access token but for what is given; one given as None is left out."""
    good = {"iss": "pairing-server", "aud": "pairing-server/api", "sub": "u1", "jti": "t1", "sid": "l1"}
    body = {**good, "iat": SECOND, "exp": SECOND + 3600, **claims}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()
