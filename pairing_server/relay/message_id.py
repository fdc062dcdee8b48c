"""The `id` of a message that is refused, read as far as it can be, whatever else is wrong with the message. No I/O.

A client that waits for the answer to an `id` would wait without end for a refusal that does not name it.
"""

from __future__ import annotations

import json
import re
from itertools import islice

import msgspec
from msgspec import Raw

# An `id` may be longer, or another number, than one that is accepted; the refusal names it all the same.
_LONGEST = 512
# Of a text that is no JSON, so much is looked at, and so many places where an `id` may be: a refusal must stay cheap.
_SCANNED = 64 * 1024
_PLACES = 256

_NUMBER = r"-?[0-9]{1,32}(?:\.[0-9]{1,32})?(?:[eE][+-]?[0-9]{1,4})?"
_VALUE = re.compile(rf'"(?:[^"\\\x00-\x1f]|\\.){{0,{_LONGEST}}}"|{_NUMBER}')
_PLACE = re.compile(rf'"id"[ \t\r\n]*:[ \t\r\n]*({_VALUE.pattern})[ \t\r\n]*(?=[,}}])')
_OPENED_AND_CLOSED = ((1, "{"), (1, "["), (-1, "}"), (-1, "]"))


class _Message(msgspec.Struct, gc=False):
    id: Raw = Raw()


_decode = msgspec.json.Decoder(_Message).decode


def message_id(frame: str | bytes) -> bytes | None:
    """The `id` in the JSON of a frame, as the JSON that it came as; None if there is none, or none that can be read.

    Of several the last counts, as for a message that is accepted. What stands behind a fault is read, too: only strings
    and brackets must be whole, or nothing behind them has a place.
    """
    text = frame if isinstance(frame, str) else frame.decode(errors="replace") if frame[:1] == b"{" else ""
    try:
        found = bytes(_decode(text).id).decode()
    except (msgspec.DecodeError, RecursionError, ValueError):
        found = _scan(text[:_SCANNED])
    return found.encode() if _VALUE.fullmatch(found) and _is_json(found) else None


def _scan(text: str) -> str:
    """The last value of an "id" directly in the outermost object; empty if there is none."""
    found, depth, at = "", 0, 0
    for place in islice(_PLACE.finditer(text), _PLACES):
        depth += _depth_change(text[at : place.start()])
        at = place.end()
        if depth == 1:
            found = place[1]
    return found


def _depth_change(text: str) -> int:
    """How many more brackets are opened than closed outside of strings."""
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    outside = "".join(text.split('"')[::2])
    return sum(change * outside.count(bracket) for change, bracket in _OPENED_AND_CLOSED)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
