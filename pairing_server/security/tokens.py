"""Access tokens and ws tokens: issues those of this server, and verifies those of clients.

An access token is for the HTTP API, a ws token for the WebSocket, and neither is valid as the other. `issuers.py` has the
keys of foreign issuers, `jws.py` checks a token's form. This module does not read the clock, the database or the
configuration, and does not log.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pairing_server.errors import InvalidToken
from pairing_server.security import jws
from pairing_server.security.claims import (
    LEEWAY_S,
    MAX_ID,
    check_not_expired,
    first_id,
    is_text,
    moment_claim,
    names_audience,
    text_claim,
    times,
)
from pairing_server.security.issuers import OWN_ISSUER, Issuers
from pairing_server.security.keys import Keyring, SigningKey

ACCESS_TYPE = "at+jwt"
WS_TYPE = "ws+jwt"
ACCESS_AUDIENCE = "pairing-server/api"
WS_AUDIENCE = "pairing-server/ws"
OWN_ALGORITHMS = ("HS256",)
DEVICE_TYPES = frozenset({"desktop", "mobile"})

DAY_S = 86_400
MAX_SUBJECT = 255
MAX_LABEL = 128


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token. `expires_in` is in seconds; the other fields are for the audit log."""

    token: str = field(repr=False)
    expires_in: int
    token_id: str
    kid: str
    login_id: str


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """The user and login of an access token. `subject` is "issuer|sub" if `foreign`."""

    subject: str
    token_id: str
    login_id: str
    issued_at: datetime
    expires_at: datetime
    foreign: bool


@dataclass(frozen=True, slots=True)
class WsClaims:
    """The user, login and device type of a ws token. `label` is for display only.

    `logged_in_at`: when the access token was issued that this token comes from.
    """

    subject: str
    device_type: str
    token_id: str
    login_id: str
    label: str | None
    logged_in_at: datetime
    expires_at: datetime


# Called with the subject, the login, the token id, and when the login was made.
IsRevoked = Callable[[str, str, str, datetime], bool]


class Tokens:
    """Issues tokens with the key that signs; accepts those of any of `keys` and of `issuers`, unless they are revoked.

    `access_ttl` and `ws_ttl` are seconds.
    """

    def __init__(
        self,
        keys: Keyring | Sequence[SigningKey],
        *,
        access_ttl: int = DAY_S,
        ws_ttl: int = DAY_S,
        issuers: Issuers | None = None,
        is_revoked: IsRevoked = lambda *_: False,
    ) -> None:
        if access_ttl < 1 or ws_ttl < 1:
            raise ValueError("a lifetime is at least one second")
        self._keyring = keys if isinstance(keys, Keyring) else Keyring(keys)
        self._access_ttl = access_ttl
        # A shorter lifetime must not end logins whose token was issued with a longer one.
        self._access_cap = max(access_ttl, DAY_S)
        self._ws_ttl = ws_ttl
        self._issuers = issuers
        self._is_revoked = is_revoked

    def trusts(self, issuer: str) -> bool:
        """Whether tokens of that issuer are taken: this server's own, and those of PAIRING_ISSUERS."""
        return issuer == OWN_ISSUER or (self._issuers is not None and self._issuers.knows(issuer))

    @property
    def longest_life(self) -> int:
        """Seconds after which every token issued until now has expired."""
        return max(self._access_cap, self._ws_ttl) + 2 * LEEWAY_S

    def issue_access(self, subject: str, now: datetime, *, ttl: int | None = None) -> Issued:
        """An access token for a user of this server: a new login. `ttl` is in seconds.

        Raises ValueError for a `ttl` out of bounds, or a subject that could be a foreign one.
        """
        lifetime = self._access_ttl if ttl is None else ttl
        if not 1 <= lifetime <= self._access_cap:
            raise ValueError(f"an access token lives 1 to {self._access_cap} seconds")
        if not is_text(subject, MAX_SUBJECT) or "|" in subject:
            raise ValueError(f"a subject is 1 to {MAX_SUBJECT} printable characters without |")
        claims = {"aud": ACCESS_AUDIENCE, "sub": subject, "sid": secrets.token_urlsafe(16)}
        return self._issue(ACCESS_TYPE, claims, lifetime, now)

    def issue_ws(self, caller: AccessClaims, device_type: str, label: str | None, now: datetime) -> Issued:
        """A ws token for the caller's device. The label is cleaned and cut to 128 characters."""
        if device_type not in DEVICE_TYPES:
            raise ValueError("a device type is desktop or mobile")
        claims: dict[str, str | float] = {
            "aud": WS_AUDIENCE,
            "sub": caller.subject,
            "sid": caller.login_id,
            "lat": caller.issued_at.timestamp(),
            "dev": device_type,
        }
        cleaned = _clean_label(label)
        if cleaned is not None:
            claims["label"] = cleaned
        return self._issue(WS_TYPE, claims, self._ws_ttl, now)

    async def verify_access(self, token: str, now: datetime) -> AccessClaims:
        """The claims of an access token. Raises InvalidToken.

        It waits only if the keys of a foreign issuer must be read or fetched first.
        """
        unverified = jws.parse(token)
        if unverified.issuer != OWN_ISSUER:
            return await self._verify_foreign(unverified, now)
        claims = self._own_claims(unverified, ACCESS_TYPE, ACCESS_AUDIENCE)
        issued_at, expires_at = _own_times(claims, now, self._access_cap)
        return self._unless_revoked(
            AccessClaims(
                subject=text_claim(claims, "sub", MAX_SUBJECT),
                token_id=text_claim(claims, "jti", MAX_ID),
                login_id=text_claim(claims, "sid", MAX_ID),
                issued_at=issued_at,
                expires_at=expires_at,
                foreign=False,
            )
        )

    def _unless_revoked(self, claims: AccessClaims) -> AccessClaims:
        if self._is_revoked(claims.subject, claims.login_id, claims.token_id, claims.issued_at):
            raise InvalidToken(reason="revoked")
        return claims

    def verify_ws(self, token: str, now: datetime) -> WsClaims:
        """The claims of a ws token, which only this server issues. Raises InvalidToken."""
        unverified = jws.parse(token)
        if unverified.issuer != OWN_ISSUER:
            raise InvalidToken(reason="iss")
        claims = self._own_claims(unverified, WS_TYPE, WS_AUDIENCE)
        device_type = text_claim(claims, "dev", MAX_ID)
        if device_type not in DEVICE_TYPES:
            raise InvalidToken(reason="malformed")
        issued_at, expires_at = _own_times(claims, now, self._ws_ttl)
        found = WsClaims(
            subject=text_claim(claims, "sub", MAX_SUBJECT),
            device_type=device_type,
            token_id=text_claim(claims, "jti", MAX_ID),
            login_id=text_claim(claims, "sid", MAX_ID),
            label=text_claim(claims, "label", MAX_LABEL) if "label" in claims else None,
            # Tokens of the previous release do not have it.
            logged_in_at=moment_claim(claims, "lat") if "lat" in claims else issued_at,
            expires_at=expires_at,
        )
        if self._is_revoked(found.subject, found.login_id, found.token_id, found.logged_in_at):
            raise InvalidToken(reason="revoked")
        return found

    def _issue(
        self, token_type: str, claims: Mapping[str, str | float], lifetime: int, now: datetime
    ) -> Issued:
        # In milliseconds, so that a login right after a revocation of all logins is not among the revoked.
        issued_at = int(now.timestamp() * 1000) / 1000
        token_id = secrets.token_urlsafe(16)
        times = {"iat": issued_at, "exp": int(issued_at) + lifetime}
        key = self._keyring.signing(now)
        token = jws.sign(
            {"iss": OWN_ISSUER, **claims, **times, "jti": token_id},
            key.secret,
            kid=key.kid,
            token_type=token_type,
        )
        return Issued(token, lifetime, token_id, key.kid, str(claims["sid"]))

    def _own_claims(self, unverified: jws.Unverified, token_type: str, audience: str) -> Mapping[str, object]:
        if unverified.algorithm not in OWN_ALGORITHMS:
            raise InvalidToken(reason="alg")
        if unverified.type != token_type:
            raise InvalidToken(reason="typ")
        secret = self._keyring.secret(unverified.kid)
        if secret is None:
            raise InvalidToken(reason="kid")
        claims = unverified.verified(secret, OWN_ALGORITHMS)
        if claims.get("aud") != audience:
            raise InvalidToken(reason="aud")
        return claims

    async def _verify_foreign(self, unverified: jws.Unverified, now: datetime) -> AccessClaims:
        issuer = unverified.issuer
        if self._issuers is None or not isinstance(issuer, str) or not self._issuers.knows(issuer):
            raise InvalidToken(reason="iss")
        # Before the key is looked up: a token that is refused anyway must not cause a fetch.
        if unverified.algorithm not in self._issuers.algorithms(issuer):
            raise InvalidToken(reason="alg")
        if not _is_foreign_access_type(unverified.type):
            raise InvalidToken(reason="typ")
        key, algorithms = await self._issuers.key(issuer, unverified.kid, now)
        claims = unverified.verified(key, algorithms)
        if not names_audience(claims.get("aud"), self._issuers.audience(issuer)):
            raise InvalidToken(reason="aud")
        sub = text_claim(claims, "sub", MAX_SUBJECT)
        subject = f"{issuer}|{sub}"
        if len(subject) > MAX_SUBJECT:
            raise InvalidToken(reason="malformed")
        issued_at, expires_at = times(claims, now)
        # Providers choose the lifetimes of their tokens; here they are valid for at most a day.
        expires_at = min(expires_at, issued_at + DAY_S)
        check_not_expired(expires_at, now)
        unnamed = hashlib.sha256(f"{subject}|{issued_at}".encode()).hexdigest()
        token_id = first_id(claims.get("jti"), unnamed)
        login_id = first_id(claims.get("sid"), token_id)
        return self._unless_revoked(
            AccessClaims(subject, token_id, login_id, _moment(issued_at), _moment(expires_at), True)
        )


def _own_times(claims: Mapping[str, object], now: datetime, cap_s: int) -> tuple[datetime, datetime]:
    issued_at, expires_at = times(claims, now)
    check_not_expired(expires_at, now)
    # This server does not issue such a token: with a longer lifetime, it is from another holder of the key.
    if expires_at - issued_at > cap_s:
        raise InvalidToken(reason="malformed")
    return _moment(issued_at), _moment(expires_at)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _is_foreign_access_type(token_type: object) -> bool:
    if token_type is None:
        return True
    # RFC 7515: a media type, so case does not matter and "application/" may be omitted.
    return isinstance(token_type, str) and token_type.lower().removeprefix("application/") in (
        "jwt",
        "at+jwt",
    )


def _clean_label(label: str | None) -> str | None:
    if label is None:
        return None
    cleaned = "".join(character for character in label if character.isprintable()).strip()
    return cleaned[:MAX_LABEL].strip() or None
