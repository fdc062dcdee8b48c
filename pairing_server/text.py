"""Text that a client chose, made harmless."""

from __future__ import annotations

import unicodedata


def clean(text: str, limit: int = 200) -> str:
    """The text on one line, without control and direction characters, cut to `limit` characters."""
    if text.isprintable():
        return text[:limit]  # nothing that is removed below is printable
    kept = (c for c in text[: limit * 10] if unicodedata.category(c)[0] != "C")
    return "".join(c for c in kept if unicodedata.category(c) not in ("Zl", "Zp"))[:limit]
