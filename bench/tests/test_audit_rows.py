"""scripts/audit-rows: the log that it makes is one that a server could have written, and its measuring measures."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from bench.audit import database, page_times
from bench.audit.generator import COLUMNS, EventGenerator
from harness.processes import run_folder
from pairing_server.audit.events import EVENTS
from pairing_server.audit.store.filters import Filter

ROWS, DAYS = 40_000, 100
END = datetime(2026, 3, 1, tzinfo=UTC)


def rows(seed: int = 1) -> list[dict[str, str]]:
    lines = EventGenerator(ROWS, DAYS, END, seed).lines()
    return [dict(zip(COLUMNS, line.rstrip("\n").split("\t"), strict=True)) for line in lines]


@pytest.fixture
def database_url() -> Iterator[str]:
    with run_folder("pairing-audit-rows-") as (folder, _), database.database(folder / "data", None) as url:
        yield url


def test_there_are_as_many_rows_as_asked_for_over_the_days() -> None:
    found = rows()
    assert len(found) == ROWS
    times = [datetime.fromisoformat(row["recorded_at"]) for row in found]
    assert END - timedelta(days=DAYS) <= min(times) <= max(times) <= END
    days = Counter(time.date() for time in times)
    assert len(days) >= DAYS
    assert max(days.values()) < 10 * ROWS / DAYS, "they do not pile up"


def test_each_row_is_an_event_of_the_inventory_with_its_severity() -> None:
    for row in rows():
        spec = EVENTS[row["event"]]
        assert int(row["severity"]) == (spec.good if row["outcome"] == "success" else spec.bad), row["event"]


def test_the_same_seed_makes_the_same_rows() -> None:
    assert rows(7) == rows(7)
    assert rows(7) != rows(8)


def test_a_log_is_filled_once_by_months_and_every_filter_is_timed(database_url: str) -> None:
    said: list[str] = []

    async def run() -> dict[str, page_times.Times]:
        end = datetime.now(UTC)
        await database.fill(database_url, EventGenerator(3_000, DAYS, end), said.append)
        with pytest.raises(SystemExit, match="events already"):
            await database.fill(database_url, EventGenerator(10, DAYS, end), said.append)
        filters = await page_times.filters(database_url)
        parts = {part for which in filters.values() for part in which.attributes()}
        assert parts == {field.name for field in fields(Filter)}, "each filter is among those that are timed"
        names = ("none", "pairing", "event + outcome", "address: /16 of attackers")
        return {name: await page_times.measure(database_url, name, filters[name]) for name in names}

    measured = asyncio.run(run())
    assert said[0] == "3,000 of 3,000 rows"
    assert measured["none"].found == 3_000
    assert measured["none"].pages in (30, 31)
    assert 0 < measured["pairing"].found < 20
    assert measured["event + outcome"].found > 0
    assert len(page_times.table(list(measured.values())).splitlines()) == 2 + len(measured)


def test_a_log_is_filled_also_when_a_month_has_begun_since_it_was_made(database_url: str) -> None:
    said: list[str] = []
    next_month = (datetime.now(UTC).replace(day=1, hour=0) + timedelta(days=32)).replace(day=2)
    asyncio.run(database.fill(database_url, EventGenerator(3_000, DAYS, next_month), said.append))
    assert said[0] == "3,000 of 3,000 rows"
