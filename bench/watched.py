"""`pairing-server serve` that tells, at SIGUSR2, how many objects, tasks, timers and files it has.

python -m bench.watched FILE OPTION…: the answer is written to FILE, as JSON, in one piece.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from tornado.web import RequestHandler

from pairing_server.cli import main
from pairing_server.relay.channel import Channel
from pairing_server.relay.outbox import Outbox
from pairing_server.relay.session import Session

OURS = (Channel, Outbox, Session, RequestHandler)


def tell(place: Path) -> None:
    """Write down what there is."""
    gc.collect()
    things = gc.get_objects()
    found = Counter(kind.__name__ for thing in things for kind in OURS if isinstance(thing, kind))
    told = {
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
    unfinished = place.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(told))
    unfinished.rename(place)


if __name__ == "__main__":
    answer = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR2, lambda *_: tell(answer))
    sys.argv[0] = "pairing-server"
    main()
