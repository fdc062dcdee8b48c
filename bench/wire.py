"""What the load needs to know of a server: how a seat is taken, and what a message of it looks like.

A seat is one connection. Two seats are a pair, and what the first sends the second receives. The load itself
knows no server: it goes through the seat's script and then sends its frame, with the time put in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

# What precedes the time in every message; the time is 16 hexadecimal digits of nanoseconds.
MARK = b'"t":"'
TIME_DIGITS = 16

_PROSE = "the quick brown fox jumps over the lazy dog "


@dataclass(frozen=True, slots=True)
class Seat:
    """`script`: steps ("wait", text of a frame) and ("send", frame), done after the upgrade.

    A message is `before`, the time and `after`. `access` and `token_path`: where a full connect gets
    its ws token first; `url` then lacks the token.
    """

    url: str
    script: list[tuple[str, str]] = field(default_factory=list)
    before: str = ""
    after: str = ""
    binary: bool = False
    access: str = ""
    token_path: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Seat:
        return cls(**{**data, "script": [(step[0], step[1]) for step in data["script"]]})


Pair = tuple[Seat, Seat]


def framed(head: str, tail: str, size: int) -> tuple[str, str]:
    """`before` and `after` of a message whose frame has `size` bytes in all. `head` and `tail`: its envelope."""
    before, end = head + '{"t":"', '"}' + tail
    filling = size - len(before) - TIME_DIGITS - len('","text":"') - len(end)
    if filling < 0:
        raise ValueError(f"no message of {size} bytes fits its envelope")
    # Prose, not one letter again and again: whoever looks at each byte shall have to.
    text = (_PROSE * (filling // len(_PROSE) + 1))[:filling]
    return before, f'","text":"{text}{end}'


def dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
