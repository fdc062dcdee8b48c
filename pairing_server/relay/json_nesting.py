"""How deep a JSON value nests, found without parsing it. No I/O."""

from __future__ import annotations

from msgspec import Raw

from pairing_server.errors import ValidationFailed

_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")


def _few_brackets(raw: bytes, limit: int) -> bool:
    """Whether no more than that many are opened. Looks no further than it must."""
    opened = 0
    for bracket in (b"{", b"["):
        at = raw.find(bracket)
        while at >= 0:
            opened += 1
            if opened > limit:
                return False
            at = raw.find(bracket, at + 1)
    return True


def too_deep(raw: bytes, limit: int) -> bool:
    """Whether this valid JSON nests objects and arrays more than `limit` deep.

    Whole passes over the bytes only, nothing for each bracket: 64 KiB of brackets must not cost more than
    64 KiB of text.
    """
    if _few_brackets(raw, limit):
        return False
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(raw.split(b'"')[::2])
    brackets = outside_strings.translate(_TO_SQUARE, _NO_BRACKETS)
    for _ in range(limit):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # takes away the innermost level
    return bool(brackets)


def check_object(payload: Raw | bytes, limit: int) -> None:
    """Raises ValidationFailed if this valid JSON is no object, or nests more than `limit` deep."""
    raw = bytes(payload)
    if not raw.startswith(b"{"):
        raise ValidationFailed("payload must be an object.", field="payload")
    if too_deep(raw, limit):
        raise ValidationFailed(f"payload is nested more than {limit} deep.", field="payload")
