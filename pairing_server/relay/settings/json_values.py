"""JSON values as they came, and whether two of them mean the same to clients of any language.

A client that sends a value again may write it differently: spaces, 3.0 for 3, other escapes.
"""

from __future__ import annotations

import json
import math


class Value:
    """A JSON value as it came, and its meaning, worked out only where the bytes differ.

    `meaning` is equal for values that are the same to clients, and for no others.
    """

    __slots__ = ("meaning", "raw")

    meaning: object

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def same(self, other: Value) -> bool:
        return self is other or self.raw == other.raw or self.meaning == other.meaning

    def __getattr__(self, name: str) -> object:
        """Work the meaning out, once: Python calls this where it is not set. It is read for thousands of comparisons."""
        if name != "meaning":
            raise AttributeError(name)
        try:
            self.meaning = _meaning(self.raw.decode())
        except (ValueError, RecursionError):
            self.meaning = self.raw  # equals no other bytes, and nothing decoded
        return self.meaning


# Every number a double, as JavaScript holds it. (msgspec would refuse 1e400 and lone surrogates.)
_DECODER = json.JSONDecoder(parse_int=float)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _meaning(text: str) -> str:
    """The value in its canonical form, the same for all values of that meaning.

    A text, since one value is compared with dozens, and thousands of numbers would be compared one by one each time.
    """
    value = _DECODER.decode(text)
    written = _ENCODER.encode(value)
    if "Infinity" in written or "-0.0" in written:
        written = _ENCODER.encode(_as_javascript(value))
    return written


def _as_javascript(value: object) -> object:
    """With what JSON.stringify makes of infinity, and only one zero."""
    if isinstance(value, float):
        return None if math.isinf(value) else value + 0.0
    if isinstance(value, dict):
        return {key: _as_javascript(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_javascript(item) for item in value]
    return value


Values = dict[str, Value]  # never changed in place: deliveries and revisions share them


def differing(values: Values, document: Values, beneath: Values) -> list[str]:
    """The keys of `values` that are new to, or other than in, `document` laid over `beneath`."""
    keys = []
    for key, value in values.items():
        known = document.get(key) or beneath.get(key)
        # As `same`, without a call.
        if known is None or (known.raw != value.raw and known.meaning != value.meaning):
            keys.append(key)
    return keys
