"""Text from outside. `clean` makes it harmless where it is taken, `plain` and `plain_json` where a person reads it."""

from __future__ import annotations

import json
import unicodedata


def clean(text: str, limit: int = 200) -> str:
    """The text on one line, without control and direction characters, cut to `limit` characters."""
    if text.isprintable():
        return text[:limit]  # nothing that is removed below is printable
    return "".join(c for c in text[: limit * 10] if not _controls(c))[:limit]


def plain(text: str, keep: str = "") -> str:
    """The text with an escape, such as \\x1b, for each character that would control a terminal or mislead its reader.

    Such are control and direction characters, line ends, and what is no character at all; those in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _controls(c) and c not in keep else c for c in text)


def plain_json(value: object) -> str:
    """The value as JSON on one line, which has an escape for each such character."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _controls(c) else c for c in text)


def is_host_name(text: str) -> bool:
    """Whether the text can be looked up, as a name or an address: the parts of a name have 1 to 63 characters (IDNA)."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True


def _controls(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")
