"""The commands of scripts/audit-rows."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.audit import database, page_times
from bench.audit.generator import EventGenerator
from harness.machine import processor
from harness.program import ROOT

FOLDER = ROOT / "bench-results" / "audit-rows"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def measure(url: str, only: str) -> None:
    rows, used = await database.size(url)
    measured = []
    for name, which in (await page_times.filters(url)).items():
        if only in name:
            measured.append(await page_times.measure(url, name, which))
            say(page_times.table(measured[-1:]).splitlines()[-1])
    print(
        f"{rows:,} rows, {used / 2**30:.1f} GiB with the indexes; {os.cpu_count()} cores of {processor()}.\n"
    )
    print(page_times.table(measured))


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/audit-rows", description=__doc__)
    parser.add_argument("command", choices=["fill", "measure", "remove"])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=400, help="over so many days until now")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="measure the filters with this in their name")
    parser.add_argument("--database-url", help="a database of its own; else an embedded one is made")
    parser.add_argument("--data-dir", type=Path, default=FOLDER, help="where the embedded one is")
    given = parser.parse_args()
    if given.command == "remove":
        shutil.rmtree(given.data_dir, ignore_errors=True)
        return
    with database.database(given.data_dir, given.database_url) as url:
        if given.command == "fill":
            generator = EventGenerator(given.rows, given.days, datetime.now(UTC), given.seed)
            asyncio.run(database.fill(url, generator, say))
        else:
            asyncio.run(measure(url, given.only))


main()
