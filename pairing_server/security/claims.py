"""Reads and checks single claims of a token whose signature is verified: texts, times, audiences.

`tokens.py` decides which claims a token needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pairing_server.errors import InvalidToken

LEEWAY_S = 30
MAX_ID = 128

_LAST_INSTANT = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def times(claims: Mapping[str, object], now: datetime) -> tuple[float, float]:
    """`iat` and `exp` in seconds since 1970, both required. Raises InvalidToken if `now` is too early."""
    issued_at, expires_at = _instant(claims, "iat"), _instant(claims, "exp")
    not_before = _instant(claims, "nbf") if "nbf" in claims else issued_at
    if expires_at <= issued_at:
        raise InvalidToken(reason="malformed")
    if max(issued_at, not_before) > now.timestamp() + LEEWAY_S:
        raise InvalidToken(reason="not_yet_valid")
    return issued_at, expires_at


def check_not_expired(expires_at: float, now: datetime) -> None:
    """Raises InvalidToken from 30 s after `expires_at` (seconds since 1970) on."""
    if now.timestamp() >= expires_at + LEEWAY_S:
        raise InvalidToken(reason="expired")


def text_claim(claims: Mapping[str, object], name: str, limit: int) -> str:
    """A required claim of 1 to `limit` printable characters. Raises InvalidToken."""
    value = claims.get(name)
    if not isinstance(value, str) or not is_text(value, limit):
        raise InvalidToken(reason="malformed")
    return value


def first_id(wanted: object, otherwise: str) -> str:
    """`wanted` if it can serve as an id, else `otherwise`."""
    return wanted if isinstance(wanted, str) and is_text(wanted, MAX_ID) else otherwise


def is_text(value: str, limit: int) -> bool:
    """True for 1 to `limit` printable characters."""
    # isprintable refuses control characters, lone surrogates and marks that change the direction of text in a log.
    return 1 <= len(value) <= limit and value.isprintable()


def names_audience(claimed: object, audience: str) -> bool:
    """True if a foreign `aud` is `audience`, or a list of texts with it."""
    # Our own are one string. Providers send a list when the client asks for a second audience (user info).
    if isinstance(claimed, list):
        return all(isinstance(entry, str) for entry in claimed) and audience in claimed
    return claimed == audience


def moment_claim(claims: Mapping[str, object], name: str) -> datetime:
    """A required claim in seconds since 1970. Raises InvalidToken."""
    return datetime.fromtimestamp(_instant(claims, name), UTC)


def _instant(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    # bool is an int in Python but not in JSON; a huge number would overflow datetime.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _LAST_INSTANT:
        raise InvalidToken(reason="malformed")
    return value
