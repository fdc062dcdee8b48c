"""The command of scripts/bench, which makes the environment for it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import chart, comparison, connections, pairings, report
from bench.load import JobFailed, Load
from bench.run import FULL, QUICK, Run
from bench.servers import OURS, PEER_LIST, start_ours
from harness.machine import raise_file_limit, two_cores
from harness.pairing_database import PairingDatabase
from harness.processes import NotStarted, Processes, run_folder
from harness.program import ROOT
from pairing_server.db.embedded.postgres import EmbeddedPostgres

RESULTS = ROOT / "bench-results"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- scripts/bench --write-docs: begin -->", "<!-- scripts/bench --write-docs: end -->"

BENCHMARKS: dict[str, Callable[[Run], None]] = {
    "idle": connections.idle,
    "relay": connections.relay,
    "flood": connections.flood,
    "connects": connections.connects,
    "storm": connections.storm,
    "pairings": pairings.pairings,
    "connections": lambda run: connections.growth(run, raise_file_limit()),
    "codes": pairings.growth,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures the server beside others, in one run."
    )
    parser.add_argument("--quick", action="store_true", help="within a minute: smaller, and less exact")
    parser.add_argument("--only", metavar="NAMES", default=",".join(BENCHMARKS), help="some of: %(default)s")
    parser.add_argument("--servers", metavar="KEYS", help="of the peers only these, such as ws,tornado")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often what has rounds is measured")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="compare with another checkout: --only relay"
    )
    parser.add_argument("--write-docs", action="store_true", help=f"copy the tables to {DOCUMENT.name}")
    given = parser.parse_args()
    if unknown := [name for name in given.only.split(",") if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {', '.join(unknown)}: {', '.join(BENCHMARKS)}")
    if given.against and given.only != "relay":
        parser.error("--against compares the relay: give --only relay")
    if given.against and not (given.against / "pairing_server").is_dir():
        parser.error(f"{given.against} is no checkout of the pairing server")
    if not Path("/proc/self/stat").exists():
        parser.error("this reads /proc, so it runs on Linux only")
    return given


def main() -> int:
    given = arguments()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {line}", file=sys.stderr, flush=True)

    scale = QUICK if given.quick else FULL
    if given.rounds:
        scale = replace(scale, rounds=given.rounds)
    when = f"{'quick, ' if given.quick else ''}{time.strftime('%Y-%m-%d %H:%M')}"
    machine = {**report.describe_machine(), "run": when}
    raise_file_limit()
    server_core, load_core = two_cores()
    if server_core == load_core:
        say("there is one core only: server and load share it, and no figure but CPU means much")
    # The load and PostgreSQL are started by this process, and stay on its core.
    os.sched_setaffinity(0, {load_core})
    try:
        with run_folder("pairing-bench-") as (folder, processes), Load() as load:
            say("starting the databases and the servers")
            if given.against:
                with (
                    EmbeddedPostgres(folder / "this") as first,
                    EmbeddedPostgres(folder / "other") as second,
                ):
                    this = comparison.start_checkout(processes, ROOT, server_core, first.url)
                    other = comparison.start_checkout(
                        processes, given.against.resolve(), server_core, second.url
                    )
                    print(comparison.compare(this, other, load, scale, say))
                    processes.stop_all()
                return 0
            with PairingDatabase(folder) as database:
                run = Run(scale, folder, database, load, say, server_core, began=started)
                measure(run, processes, given.only.split(","), given.servers)
                processes.stop_all()
    except (NotStarted, JobFailed) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    write(run, machine, to_docs=given.write_docs)
    if OURS not in run.servers:
        say("the server itself did not start: see above")
        return 1
    return 0


def measure(run: Run, processes: Processes, benchmarks: list[str], peers: str | None) -> None:
    """Start the servers, and do one benchmark after another."""
    run.add_server("pairing server", partial(start_ours, processes, run.database, run.server_core))
    for peer in PEER_LIST:
        if peers is None or peer.key in peers.split(","):
            run.add_server(peer.title, partial(peer.start, processes, run.folder, run.server_core))
    run.await_servers(processes)
    for name in benchmarks:
        BENCHMARKS[name](run)


def write(run: Run, machine: dict[str, str], *, to_docs: bool) -> None:
    """The tables to standard output, and everything to bench-results/."""
    text = report.markdown(run.records, run.skipped, machine)
    print(text)
    results = report.as_json(run.records, run.skipped, machine)
    subtitle = f"{machine['processor']}, commit {machine['commit']}, {machine['run']}"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.md").write_text(text, encoding="utf-8")
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "latest.svg").write_text(chart.svg(run.records, subtitle), encoding="utf-8")
    run.say(f"written: {', '.join(str(path.relative_to(ROOT)) for path in sorted(RESULTS.glob('latest.*')))}")
    if to_docs:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        inner = text.replace("\n## ", "\n### ").replace("## Figures", "### Figures", 1)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{inner}\n{END}{after}", encoding="utf-8")
        run.say(f"written: {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
