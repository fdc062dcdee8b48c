"""The text of a setting into its value. What is of no use raises ValueError, with what was expected.

What belongs to one subject reads itself: keys, issuers, rates, origins, networks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Turns the text of a setting into its value; ValueError says what was expected.
Reader = Callable[[str], Any]


def items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def number(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        if not (text.isascii() and text.strip().isdecimal() and low <= int(text) <= high):
            raise ValueError(f"expected a whole number from {low} to {high}, got {text[:40]!r}")
        return int(text)

    return read


def one_of(*words: str) -> Reader:
    def read(text: str) -> str:
        value = text.strip().lower()
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}, got {value[:40]!r}")
        return value

    return read


def flag(text: str) -> bool:
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if text.strip().lower() not in words:
        raise ValueError(f"expected true or false, got {text[:40]!r}")
    return words[text.strip().lower()]


def url(*schemes: str) -> Reader:
    """A URL with a host; a slash at its end is dropped."""
    beginnings = tuple(f"{scheme}://" for scheme in schemes)

    def read(text: str) -> str:
        if not text.startswith(beginnings) or not _host_of(text):
            raise ValueError(
                f"expected a URL that begins with {' or '.join(beginnings)}, such as {beginnings[0]}host:8089"
            )
        return text.rstrip("/")

    return read


def database_url(text: str) -> str:
    """A URL of PostgreSQL, with no host, one, or several: host:port,host:port.

    What is wrong with it is told without repeating it: it may hold a password.
    """
    scheme, _, rest = text.partition("://")
    login, _, places = rest.partition("/")[0].rpartition("@")
    hosts = [_host_of(f"{scheme}://{login}@{place}") for place in places.split(",")]
    unnamed = len(hosts) > 1 and "" in hosts
    if not text.startswith(("postgresql://", "postgres://")) or None in hosts or unnamed:
        raise ValueError(
            "expected a URL that begins with postgresql:// or postgres://,"
            " such as postgresql://user:password@host:5432/name"
        )
    return text


def _host_of(text: str) -> str | None:
    """The host of a URL, "" where it names none; None if this is no URL, or its port is no port."""
    try:
        parts = urlsplit(text)
        return None if parts.port == 0 else parts.hostname or ""
    except ValueError:
        return None


def host(text: str) -> str:
    if not text.strip() or any(c.isspace() or c in "/?#@" for c in text):
        raise ValueError("expected an address or a host name to listen on")
    return text.strip()


def file_or_url(text: str) -> str:
    """An absolute path, or a URL that takes a POST."""
    if "://" in text:
        return str(url("https", "http")(text))
    return str(Path(text).expanduser().absolute())
