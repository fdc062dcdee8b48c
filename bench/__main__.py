"""The command: python -m bench. scripts/bench makes the environment for it first."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import cells, chart, database, report
from bench.loads import Load
from bench.machine import ROOT, describe, raise_file_limit, two_cores
from bench.ours import OURS, TITLE, Site
from bench.processes import Processes
from bench.run import FULL, QUICK, Run, Scale, nothing_of_the_environment
from bench.servers import PEER_LIST

RESULTS = ROOT / "bench-results"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- scripts/bench --write-docs: begin -->", "<!-- scripts/bench --write-docs: end -->"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures the server beside others, in one run."
    )
    parser.add_argument("--quick", action="store_true", help="within a minute: smaller, and less sure")
    parser.add_argument("--only", metavar="CELLS", help=f"some of: {','.join(CELLS)}")
    parser.add_argument("--servers", metavar="KEYS", help="of the peers only these, such as ws,tornado")
    parser.add_argument("--write-docs", action="store_true", help=f"copy the tables to {DOCUMENT.name}")
    return parser.parse_args()


CELLS: dict[str, Callable[[Run], None]] = {
    "idle": cells.idle,
    "relay": cells.relay,
    "flood": cells.flood,
    "connects": cells.connects,
    "storm": cells.storm,
    "pairings": database.pairings,
    "connections": lambda run: cells.growth(run, raise_file_limit()),
    "codes": database.growth,
}


def main() -> int:
    given = arguments()
    wanted = given.only.split(",") if given.only else list(CELLS)
    if unknown := [name for name in wanted if name not in CELLS]:
        print(f"scripts/bench: there is no cell {', '.join(unknown)}: {', '.join(CELLS)}", file=sys.stderr)
        return 2
    if not Path("/proc/self/stat").exists():
        print("scripts/bench: this reads /proc, so it runs on Linux only", file=sys.stderr)
        return 2
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {line}", file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    nothing_of_the_environment()
    machine = {**describe(), "run": f"{'quick, ' if given.quick else ''}{time.strftime('%Y-%m-%d %H:%M')}"}
    try:
        scale = QUICK if given.quick else FULL
        run = measure(scale, wanted, given.servers, started + scale.within, say)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    write(run, machine, to_docs=given.write_docs, say=say)
    if OURS not in run.servers:
        say("the server itself did not start: see above")
        return 1
    return 0


def measure(
    scale: Scale, wanted: list[str], peers: str | None, deadline: float, say: Callable[[str], None]
) -> Run:
    """Start everything, measure cell by cell, and end everything however it goes."""
    server_core, load_core = two_cores()
    if server_core == load_core:
        say("there is one core only: server and load share it, and no figure but CPU means much")
    os.sched_setaffinity(0, {load_core})
    raise_file_limit()
    with (
        tempfile.TemporaryDirectory(prefix="pairing-bench-") as name,
        Processes(Path(name)) as processes,
        Load() as load,
    ):
        # The embedded database runs as a user of its own when this is root.
        Path(name).chmod(0o755)
        say("starting the database and the servers")
        site = Site(processes, Path(name), server_core)
        try:
            run = Run(scale, Path(name), site, load, say, deadline)
            run.begin(TITLE, site.start)
            for peer in PEER_LIST:
                if peers is None or peer.key in peers.split(","):
                    run.begin(peer.title, partial(peer.start, processes, Path(name), server_core))
            run.await_servers(processes)
            for cell in wanted:
                CELLS[cell](run)
            for server in run.servers.values():
                processes.stop(server.process)
        finally:
            site.close()
    return run


def write(run: Run, machine: dict[str, str], *, to_docs: bool, say: Callable[[str], None]) -> None:
    """The tables to standard output, and all of it to bench-results/."""
    text = report.markdown(run.records, run.skipped, machine)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.md").write_text(text, encoding="utf-8")
    found = report.as_json(run.records, run.skipped, machine)
    (RESULTS / "latest.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    subtitle = f"{machine.get('processor', '?')}, commit {machine['commit']}, {machine['run']}"
    (RESULTS / "latest.svg").write_text(chart.svg(run.records, subtitle), encoding="utf-8")
    say(f"written: {', '.join(str(path.relative_to(ROOT)) for path in sorted(RESULTS.glob('latest.*')))}")
    if to_docs:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        inner = text.replace("\n## ", "\n### ").replace("## Figures", "### Figures", 1)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{inner}\n{END}{after}", encoding="utf-8")
        say(f"written: {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
