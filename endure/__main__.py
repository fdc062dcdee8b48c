"""The command of scripts/endure: what takes long, or must not be done beside anything else."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from endure import bounds, database_faults, ends, kills, leaks, repeat, soak, storm, unknown_keys
from endure.run import Run
from harness.machine import raise_file_limit, two_cores
from harness.pairing_database import PairingDatabase
from harness.processes import run_folder


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/endure", description="Tests the server for longer than a test may take."
    )
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("soak", help="a steady load; how memory and objects grow")
    one.add_argument("--minutes", type=float, default=60)
    one.add_argument("--pairs", type=int, default=100)
    one.add_argument("--busy", type=float, default=0.2, help="the part of its core that the server is to use")
    one = what.add_parser(
        "leaks", help="connects and pairings, then idle: the server must hold as much as before"
    )
    one.add_argument("--connects", type=int, default=5000)
    one.add_argument("--pairings", type=int, default=1000)
    one = what.add_parser("storm", help="all clients reconnect, with the database there and away")
    one.add_argument("--clients", type=int, default=5000)
    one.add_argument("--within", type=float, default=30, help="seconds")
    one = what.add_parser("kills", help="kill -9 at random moments under traffic")
    one.add_argument("--rounds", type=int, default=20)
    one.add_argument("--seed", type=int, default=1)
    one = what.add_parser("faults", help="the database becomes unavailable in every way")
    one.add_argument("--seconds", type=float, default=5, help="how long clients call during each outage")
    one.add_argument("--blackhole-seconds", type=float, help="the same, while it is cut off without a reset")
    one = what.add_parser(
        "unknown-keys", help="tokens with unknown keys, while the issuer's key set is unavailable"
    )
    one.add_argument("--seconds", type=float, default=30)
    one.add_argument("--rate", type=float, default=1000, help="tokens a second")
    one = what.add_parser(
        "ends", help="two servers, one database: how soon the end of a pairing reaches its devices"
    )
    one.add_argument("--pairs", type=int, default=200)
    one = what.add_parser(
        "memory", help="anonymous bodies that lack their end; what the server holds of them"
    )
    one.add_argument("--connections", type=int, default=300)
    one = what.add_parser(
        "descriptors", help="more clients than descriptors, and idle sockets of one address"
    )
    one.add_argument("--limit", type=int, default=256)
    one = what.add_parser("core", help="large settings of one account; what of a core they take")
    one.add_argument("--pairs", type=int, default=4)
    one.add_argument("--rate", type=float, default=58, help="messages a second of each device")
    one = what.add_parser("repeat", help="tests, many times")
    one.add_argument("rounds", type=int)
    one.add_argument("tests", nargs=argparse.REMAINDER, help="arguments of pytest")
    what.add_parser("longer", help="the tests whose counts scripts/test keeps small, with larger ones")
    given = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.error("this reads /proc, so it runs on Linux only")
    return given


def main() -> int:
    given = arguments()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    if given.what == "longer":
        return 0 if repeat.longer(say) else 1
    if given.what == "repeat":
        return 0 if repeat.repeat(given.rounds, given.tests, say) else 1
    server_core, load_core = two_cores()
    os.sched_setaffinity(0, {load_core})
    raise_file_limit()
    with run_folder("pairing-endure-") as (folder, processes):
        return 0 if _run(given, Run(folder, processes, server_core, say)) else 1


def _run(given: argparse.Namespace, run: Run) -> bool:
    """Whether the server did well."""
    match given.what:
        case "kills":
            return kills.check(run.folder, given.rounds, given.seed, run.say)
        case "faults":
            return database_faults.check(run, given.seconds, given.blackhole_seconds or given.seconds)
    with PairingDatabase(run.folder) as database:
        match given.what:
            case "soak":
                work = soak.check(run, database, given.minutes, given.pairs, given.busy)
            case "leaks":
                work = leaks.check(run, database, given.connects, given.pairings)
            case "memory":
                work = bounds.memory(run, database, given.connections)
            case "descriptors":
                work = bounds.descriptors(run, database, given.limit)
            case "core":
                work = bounds.core(run, database, given.pairs, given.rate)
            case "unknown-keys":
                work = unknown_keys.check(run, database, given.seconds, given.rate)
            case "ends":
                work = ends.check(run, database, given.pairs)
            case _:
                work = storm.check(run, database, given.clients, given.within)
        try:
            return asyncio.run(work)
        finally:
            # Before its database.
            run.processes.stop_all()


if __name__ == "__main__":
    sys.exit(main())
