"""`pairing-server serve` that at SIGUSR2 writes how many objects, tasks, timers and files it holds, and of which types.

python -m endure.inspected FILE OPTION…: the answer is written to FILE as JSON, in one piece.
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

COUNTED = (Channel, SendQueue, Connection, RequestHandler)


_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _MallInfo(ctypes.Structure):
    """The result of glibc's mallinfo2."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


def write_snapshot(file: Path) -> None:
    gc.collect()
    # Before the lists below are made. What is smaller than half a KiB is Python's, the rest is malloc's.
    memory = {"blocks": sys.getallocatedblocks(), **malloc_bytes()}
    objects = gc.get_objects()
    counts = {
        "objects": len(objects),
        **{kind.__name__: sum(isinstance(one, kind) for one in objects) for kind in COUNTED},
        "tasks": sum(isinstance(one, asyncio.Task) and not one.done() for one in objects),
        # uvloop's class of the name, too. A pooled connection has a timer for each cached statement, a hundred at most.
        "timers": sum(
            type(one).__name__ == "TimerHandle" and not one.cancelled() and "_StatementCache" not in repr(one)
            for one in objects
        ),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }
    types = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in objects)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"counts": counts, "memory": memory, "types": types}))
    unfinished.rename(file)


def malloc_bytes() -> dict[str, int]:
    """Bytes that malloc has given out, and that it keeps for later; nothing where the C library has no mallinfo2."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return {}
    mallinfo.restype = _MallInfo
    info = mallinfo()
    return {"in use": info.uordblks + info.hblkhd, "kept": info.fordblks}


if __name__ == "__main__":
    answer = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR2, lambda *_: write_snapshot(answer))
    sys.argv[0] = "pairing-server"
    main()
