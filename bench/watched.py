"""`pairing-server serve` that tells, at SIGUSR2, how many objects, tasks, timers and files it has, and of which types.

python -m bench.watched FILE OPTION…: the answer is written to FILE, as JSON, in one piece.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from tornado.web import RequestHandler

from pairing_server.cli import main
from pairing_server.relay.channel import Channel
from pairing_server.relay.connection import Connection
from pairing_server.relay.send_queue import SendQueue

OURS = (Channel, SendQueue, Connection, RequestHandler)


class _MallInfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def tell(place: Path) -> None:
    """Write down what there is."""
    gc.collect()
    # Before the lists below are made. What is smaller than half a KiB is Python's, the rest is malloc's.
    memory = {"blocks": sys.getallocatedblocks(), **malloced()}
    things = gc.get_objects()
    found = Counter(kind.__name__ for thing in things for kind in OURS if isinstance(thing, kind))
    held = {
        "objects": len(things),
        **{kind.__name__: found[kind.__name__] for kind in OURS},
        "tasks": sum(isinstance(thing, asyncio.Task) and not thing.done() for thing in things),
        # A connection that the pool keeps has a timer for each statement that it remembers, a hundred at most.
        "timers": sum(
            type(thing).__name__ == "TimerHandle"
            and not thing.cancelled()
            and "_StatementCache" not in repr(thing)
            for thing in things
        ),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in things)
    unfinished = place.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"held": held, "memory": memory, "kinds": kinds}))
    unfinished.rename(place)


def malloced() -> dict[str, int]:
    """Bytes that malloc has given out, and that it keeps for later; nothing where the C library does not tell."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return {}
    ask.restype = _MallInfo
    info = ask()
    return {"in use": info.uordblks + info.hblkhd, "kept": info.fordblks}


if __name__ == "__main__":
    answer = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR2, lambda *_: tell(answer))
    sys.argv[0] = "pairing-server"
    main()
