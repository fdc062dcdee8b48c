"""The command: python -m bench.endure. What takes long, or must not be done beside anything else."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench import faults, kills, leaks, soak, storm, strangers
from bench.machine import raise_file_limit, two_cores
from bench.ours import Site
from bench.processes import Processes
from bench.run import nothing_of_the_environment


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/endure", description="Puts the server to the test for longer than a test may take."
    )
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("soak", help="a steady load; how memory and objects grow")
    one.add_argument("--minutes", type=float, default=60)
    one.add_argument("--pairs", type=int, default=100)
    one.add_argument("--busy", type=float, default=0.2, help="the part of its core that the server shall use")
    one = what.add_parser("leaks", help="connects and pairings, then idle: everything back where it was")
    one.add_argument("--connects", type=int, default=5000)
    one.add_argument("--pairings", type=int, default=1000)
    one = what.add_parser("storm", help="everybody reconnects, with the database there and away")
    one.add_argument("--clients", type=int, default=5000)
    one.add_argument("--within", type=float, default=30, help="seconds")
    one = what.add_parser("kills", help="kill -9 at random moments under traffic")
    one.add_argument("--rounds", type=int, default=20)
    one.add_argument("--seed", type=int, default=1)
    one = what.add_parser("faults", help="the database goes away in every way; how soon callers are told")
    one.add_argument("--seconds", type=float, default=5, help="how long callers ask while it is away")
    one.add_argument("--blackhole-seconds", type=float, help="the same, while it is cut off without a reset")
    one = what.add_parser("strangers", help="tokens with unknown keys, while the issuer's key set is away")
    one.add_argument("--seconds", type=float, default=30)
    one.add_argument("--rate", type=float, default=1000, help="tokens a second")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if not Path("/proc/self/stat").exists():
        print("scripts/endure: this reads /proc, so it runs on Linux only", file=sys.stderr)
        return 2
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    nothing_of_the_environment()
    server_core, load_core = two_cores()
    os.sched_setaffinity(0, {load_core})
    raise_file_limit()
    with (
        tempfile.TemporaryDirectory(prefix="pairing-endure-", ignore_cleanup_errors=True) as name,
        Processes(Path(name)) as processes,
    ):
        folder = Path(name)
        # The embedded database runs as a user of its own when this is root.
        folder.chmod(0o755)
        if given.what == "kills":
            return kills.run(folder, given.rounds, given.seed, say)
        if given.what == "faults":
            blackhole = given.blackhole_seconds or given.seconds
            return faults.run(processes, folder, server_core, given.seconds, blackhole, say)
        site = Site(processes, folder, server_core)
        try:
            match given.what:
                case "soak":
                    work = soak.run(site, folder, server_core, given.minutes, given.pairs, given.busy, say)
                case "leaks":
                    work = leaks.run(site, folder, server_core, given.connects, given.pairings, say)
                case "strangers":
                    work = strangers.run(site, folder, server_core, given.seconds, given.rate, say)
                case _:
                    work = storm.run(site, folder, server_core, given.clients, given.within, say)
            return 0 if asyncio.run(work) else 1
        finally:
            site.close()


if __name__ == "__main__":
    sys.exit(main())
