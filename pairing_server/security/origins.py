"""Web origins that may use this server: parsing `Origin` headers and matching them. No HTTP here.

Origins are compared part by part, not as texts: "https://a.com" is a prefix of "https://a.com.evil.io". A text that is
not clearly an origin is not allowed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    rf"(?P<host>\[[0-9a-f:.]+\]|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}

# Browsers send these for a page without an origin. Only the same entry matches.
_OPAQUE = frozenset({"null", "file://"})


@dataclass(frozen=True, slots=True)
class _Origin:
    """`port` is None only for a scheme without a default one. A wildcard's host starts with "*."."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        usual = self.port == _DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{self.host}" + ("" if usual else f":{self.port}")


@dataclass(frozen=True)
class Origins:
    """The allowed origins; an empty one allows none."""

    _exact: frozenset[_Origin]
    _wildcards: frozenset[_Origin]
    _opaque: frozenset[str]

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Origins:
        """From the entries of PAIRING_ALLOWED_ORIGINS. Raises ValueError naming the entry and the fault."""
        exact: set[_Origin] = set()
        wildcards: set[_Origin] = set()
        opaque: set[str] = set()
        for entry in entries:
            text = entry.strip()
            if text.lower() in _OPAQUE:
                opaque.add(text.lower())
                continue
            origin = _parse(text)
            if origin is None:
                raise ValueError(f"{entry!r} is not an origin: {_fault(text)}")
            if origin.host.startswith("*."):
                _check_wildcard(entry, origin)
                wildcards.add(origin)
            else:
                exact.add(origin)
        return cls(frozenset(exact), frozenset(wildcards), frozenset(opaque))

    def __str__(self) -> str:
        """The entries in the form of the setting."""
        return ", ".join(sorted([*map(str, self._exact | self._wildcards), *self._opaque]))

    def allows(self, origin: str) -> bool:
        """Whether this `Origin` header is one of the entries, or matches a wildcard."""
        if origin in _OPAQUE:
            return origin in self._opaque
        parsed = _parse(origin)
        if parsed is None or parsed.host.startswith("*."):
            return False
        if parsed in self._exact:
            return True
        # The star stands for exactly one label: only what follows the first dot is compared.
        _, dot, parent = parsed.host.partition(".")
        return bool(dot) and _Origin(parsed.scheme, f"*.{parent}", parsed.port) in self._wildcards


def same_host(origin: str, scheme: str, host_header: str) -> bool:
    """Whether the origin is `scheme` plus the Host header, and that host is an IP address or localhost.

    Another name proves nothing: its owner can point it at this machine (DNS rebinding), so that Origin and Host are
    equal. Such a name must be in the list, or be that of the public URL.
    """
    parsed = _parse(origin)
    if parsed is None or parsed != _parse(f"{scheme}://{host_header}"):
        return False
    return parsed.host == "localhost" or _is_address(parsed.host)


def is_origin_of(origin: str, url: str) -> bool:
    """Whether pages at that URL have this origin."""
    parts = urlsplit(url)
    parsed = _parse(origin)
    return parsed is not None and parsed == _parse(f"{parts.scheme}://{parts.netloc}")


def is_own_page(origin: str, host_header: str) -> bool:
    """Whether a page of that origin was loaded from the host that its request names. The owner of that name may have pointed it here."""
    parsed = _parse(origin)
    return parsed is not None and parsed in (_parse(f"{scheme}://{host_header}") for scheme in _DEFAULT_PORTS)


def _parse(text: str) -> _Origin | None:
    """None if this is not an origin, or has a user, a path, a query, or a character beyond ASCII."""
    # Before lower(): some letters beyond ASCII have an ASCII lower case.
    if not text.isascii():
        return None
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        return None
    scheme, host = found["scheme"], found["host"]
    port = _DEFAULT_PORTS.get(scheme) if found["port"] is None else int(found["port"])
    if port is not None and port > 65_535:
        return None
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            return None
    return _Origin(scheme, host, port)


def _is_address(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return not address.is_unspecified


def _check_wildcard(entry: str, origin: _Origin) -> None:
    parent = origin.host.removeprefix("*.")
    if origin.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{entry!r}: a wildcard needs http:// or https://")
    # A last label of digits would be part of an IPv4 address.
    if "." not in parent or parent.rpartition(".")[2].isdecimal():
        raise ValueError(f"{entry!r}: a wildcard needs a domain of at least two labels after it")


def _fault(text: str) -> str:
    if text == "*":
        return "list the origins, a bare * would admit every page"
    if not text.isascii():
        return "write an international name in its xn-- form"
    if "*" in text:
        return "a * stands for the whole first label, as in https://*.example.com"
    _, scheme_end, rest = text.partition("://")
    if not scheme_end:
        return "it must start with a scheme, as in https://example.com"
    if "@" in rest or "/" in rest or "?" in rest or "#" in rest:
        return "write scheme, host and port only, without user, path or final slash"
    return "expected scheme://host or scheme://host:port"
