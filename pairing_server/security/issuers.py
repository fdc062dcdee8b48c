"""Foreign issuers whose access tokens are trusted, each for one audience and some algorithms.

`jwks.py` keeps their public keys, `tokens.py` verifies their tokens.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from pairing_server.errors import InvalidToken
from pairing_server.security.addresses import is_loopback
from pairing_server.security.jwks import FileSource, KeyCache, OnRefresh, UrlSource
from pairing_server.security.jws import PublicKey

OWN_ISSUER = "pairing-server"
ALGORITHMS = ("RS256", "ES256", "EdDSA")
# Leaves room for the subject: "issuer|sub" is at most 255 characters.
MAX_ISSUER = 200


def issuer_of(subject: str) -> str:
    """Whose user that is: "issuer|sub" of a foreign issuer, else ours."""
    issuer, bar, _ = subject.partition("|")
    return issuer if bar else OWN_ISSUER


_FIELDS = frozenset({"issuer", "audience", "algorithms", "jwks"})


@dataclass(frozen=True, slots=True)
class Issuer:
    """One trusted issuer; `jwks` is a path, or a URL that starts with https:// or http://."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    jwks: str

    def __str__(self) -> str:
        return self.issuer


def parse_issuers(text: str) -> tuple[Issuer, ...]:
    """The JSON list of PAIRING_ISSUERS; none for an empty text. Raises ValueError naming the fault."""
    if not text.strip():
        return ()
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("not a JSON list: nested too deep") from None
    if not isinstance(items, list):
        raise ValueError("expected a JSON list of objects with issuer, audience, algorithms and jwks")
    issuers: list[Issuer] = []
    for number, item in enumerate(items, start=1):
        try:
            issuer = _issuer(item)
        except ValueError as error:
            raise ValueError(f"issuer {number}: {error}") from None
        if any(other.issuer == issuer.issuer for other in issuers):
            raise ValueError(f"issuer {number}: {issuer.issuer!r} occurs twice")
        issuers.append(issuer)
    return tuple(issuers)


class Issuers:
    """The keys of the issuers, read when they are needed.

    `fetch` gets a URL: bounded in time and size, without redirects. `on_refresh(issuer, added, removed, error)` is
    called when keys change, with their kids, and when failures begin and end (error None).
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        fetch: Callable[[str], Awaitable[bytes]],
        *,
        on_refresh: OnRefresh | None = None,
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._caches = {
            issuer.issuer: KeyCache(
                issuer.issuer,
                UrlSource(issuer.jwks, fetch) if _is_url(issuer.jwks) else FileSource(issuer.jwks),
                on_refresh,
            )
            for issuer in issuers
        }

    def knows(self, iss: str) -> bool:
        """Whether `iss` is exactly the name of one of them."""
        return iss in self._issuers

    def audience(self, iss: str) -> str:
        """The audience that a known issuer's tokens must name."""
        return self._issuers[iss].audience

    def algorithms(self, iss: str) -> tuple[str, ...]:
        """The algorithms that may sign a known issuer's tokens."""
        return self._issuers[iss].algorithms

    async def key(self, iss: str, kid: str | None, now: datetime) -> tuple[PublicKey, tuple[str, ...]]:
        """The issuer's key of that name, and the algorithms that it may be used with.

        Without a kid, the issuer must have exactly one key. Raises InvalidToken.
        """
        cache = self._caches.get(iss)
        if cache is None:
            raise InvalidToken(reason="iss")
        found = await cache.find(kid, now)
        if found is None:
            raise InvalidToken(reason="kid")
        if found.algorithm not in self._issuers[iss].algorithms:
            raise InvalidToken(reason="alg")
        return found.key, (found.algorithm,)

    async def close(self) -> None:
        """Cancel the fetches that are running."""
        for cache in self._caches.values():
            await cache.close()


def _issuer(item: object) -> Issuer:
    if not isinstance(item, dict):
        raise ValueError("expected an object with issuer, audience, algorithms and jwks")
    if unknown := sorted(set(item) - _FIELDS):
        raise ValueError(f"unknown field {unknown[0]!r}")
    name = _text(item, "issuer", MAX_ISSUER)
    if name == OWN_ISSUER:
        raise ValueError(f"{OWN_ISSUER!r} is this server's own name")
    # The first | of "issuer|sub" ends the issuer; otherwise two users could share a subject.
    if "|" in name:
        raise ValueError("the issuer must not contain |")
    jwks = _text(item, "jwks", 2000)
    _check_location(jwks)
    return Issuer(name, _text(item, "audience", 255), _algorithms(item.get("algorithms")), jwks)


def _text(item: dict[str, object], field: str, limit: int) -> str:
    value = item.get(field)
    if not isinstance(value, str) or not 1 <= len(value) <= limit or not value.isprintable():
        raise ValueError(f"{field} must be a text of 1 to {limit} printable characters")
    return value


def _algorithms(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"algorithms must be a list with at least one of {', '.join(ALGORITHMS)}")
    for name in value:
        if name not in ALGORITHMS:
            raise ValueError(f"algorithm {name!r} is not one of {', '.join(ALGORITHMS)}")
    return tuple(dict.fromkeys(value))


def _is_url(jwks: str) -> bool:
    return "://" in jwks


def _check_location(jwks: str) -> None:
    if not _is_url(jwks):
        return
    url = urlsplit(jwks)
    # `port` raises ValueError if it is not a port.
    if url.scheme not in ("https", "http") or not url.hostname or url.port == 0:
        raise ValueError("jwks must be a path, or a URL that starts with https://")
    if url.username is not None or url.fragment or " " in jwks:
        raise ValueError("the URL of jwks must have neither a user, a fragment nor a space")
    if url.scheme == "http" and not is_loopback(url.hostname):
        raise ValueError("jwks by http:// is taken from a loopback host only; use https://")
