"""Parsers turn a setting's text into its value. A wrong text raises ValueError, which says what was expected.

Keys, issuers, rates, origins and networks have their parsers beside their types.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from pairing_server.db.connection_parameters import read
from pairing_server.text import is_host_name


def items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.strip().isdecimal() and low <= int(text) <= high):
            raise ValueError(f"expected a whole number from {low} to {high}, got {text[:40]!r}")
        return int(text)

    return parse


def durations(text: str) -> tuple[int, ...]:
    """Whole seconds, up to a day each."""
    try:
        found = tuple(map(number(1, 86_400), items(text)))
    except ValueError:
        found = ()
    if not found:
        raise ValueError(f"expected seconds from 1 to 86400 such as 300, 900, got {text[:40]!r}")
    return found


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        value = text.strip().lower()
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}, got {value[:40]!r}")
        return value

    return parse


def flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "1", "yes", "on", "false", "0", "no", "off"):
        raise ValueError(f"expected true or false, got {text[:40]!r}")
    return word in ("true", "1", "yes", "on")


def url(*schemes: str) -> Callable[[str], str]:
    """A URL with a host; a slash at its end is dropped."""
    beginnings = tuple(f"{scheme}://" for scheme in schemes)

    def parse(text: str) -> str:
        if not text.startswith(beginnings) or not _host_of(text):
            raise ValueError(
                f"expected a URL that begins with {' or '.join(beginnings)}, such as {beginnings[0]}host:8089"
            )
        return text.rstrip("/")

    return parse


def public_url(text: str) -> str:
    """A URL that others can follow: paths are added at its end. A slash there is dropped."""
    parts = urlsplit(found := url("http", "https")(text))
    if (
        parts.username is not None
        or "?" in text
        or "#" in text
        or "//" in parts.path
        or not found.isprintable()
    ):
        raise ValueError(
            "expected scheme, host and perhaps a port and a path, such as https://example.com/pairing, without a user, ? and #"
        )
    return found


def database_url(text: str) -> str:
    """A URL of PostgreSQL, whose parameters are libpq's.

    An error does not repeat the URL: it may hold a password.
    """
    read(text)
    return text


def _host_of(text: str) -> str | None:
    """The host of a URL, "" if it has none; None if this is not a URL or the port is wrong."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        return host if parts.port != 0 and is_host_name(host) else None
    except ValueError:
        return None


def host(text: str) -> str:
    if not is_host_name(text.strip() or ".") or any(c.isspace() or c in "/?#@" for c in text):
        raise ValueError("expected an address or a host name to listen on")
    return text.strip()


def file_or_url(text: str) -> str:
    """An absolute path, or a URL that takes a POST."""
    if "://" in text:
        return url("https", "http")(text)
    return str(absolute_path(text))


def path(text: str) -> Path:
    return Path(text).expanduser()


def absolute_path(text: str) -> Path:
    return path(text).absolute()
