"""A database with data goes from release to release while the release before still works on it.

tests/store/releases/REVISION.sql has every statement that the release of that schema sends; capture.py wrote it down.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from pairing_server.db import migrations
from pairing_server.server.server import Node
from tests.conftest import CONFIGURATION
from tests.db.test_migrations import REVISIONS

RELEASES = sorted(Path(__file__).with_name("releases").glob("*.sql"))
MARK = "a1a1a1a1"
SOMEBODY, SOMEBODY_ELSE = "0b0b0b0b", "0c0c0c0c"
# What must still be there, whatever the tables look like by then.
DATA = (
    "SELECT id, username, role, disabled_at FROM users ORDER BY id",
    "SELECT id, state, desktop_session, mobile_session, ended_at, end_reason FROM pairings ORDER BY id",
    "SELECT session_id, subject, device_type FROM sessions ORDER BY session_id",
    "SELECT kind, key, times, level, locked_until FROM attempts ORDER BY kind, key",
    "SELECT event_id, event, outcome, attrs, occurred_at, recorded_at, seq FROM audit_events ORDER BY seq",
)


async def send(connection: asyncpg.Connection, release: str, who: str) -> list[str]:
    """Do what the release does, as that somebody; what each statement has come to."""
    done = []
    for entry in release.replace(MARK, who).split("\n;;\n"):
        statement, _, values = entry.strip().partition("\n-- with ")
        await connection.execute(f"PREPARE sent AS {statement}")
        done.append(
            f"{await connection.execute(f'EXECUTE sent({values})' if values else 'EXECUTE sent')} {statement[:40]}"
        )
        await connection.execute("DEALLOCATE sent")
    return done


async def settle(url: str, release: str) -> None:
    """Fill the database with what somebody has done."""
    connection = await asyncpg.connect(url)
    try:
        await send(connection, release, SOMEBODY)
    finally:
        await connection.close()


async def trial(url: str, release: str) -> list[str]:
    """What everything comes to that the release may do; then it has not happened."""
    connection = await asyncpg.connect(url)
    try:
        trying = connection.transaction()
        await trying.start()
        done = await send(connection, release, SOMEBODY_ELSE)
        await trying.rollback()
        return done
    finally:
        await connection.close()


async def data(url: str) -> list[list[tuple[object, ...]]]:
    connection = await asyncpg.connect(url)
    try:
        return [[tuple(row) for row in await connection.fetch(query)] for query in DATA]
    finally:
        await connection.close()


async def starts(url: str) -> None:
    node = Node(CONFIGURATION, url)
    await node.start(timers=False)
    await node.stop()


def test_the_first_release_is_among_them() -> None:
    assert RELEASES[0].stem == REVISIONS[0]
    assert {release.stem for release in RELEASES} <= set(REVISIONS)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.stem)
def test_what_a_release_sends_goes_on_working_with_every_later_schema(
    empty_database: str, release: Path
) -> None:
    migrations.migrate(empty_database, release.stem)
    statements = release.read_text(encoding="utf-8")
    asyncio.run(settle(empty_database, statements))
    before, expected = asyncio.run(data(empty_database)), asyncio.run(trial(empty_database, statements))
    assert all(before)
    assert len({done.split()[0] for done in expected}) >= 4  # SELECT, INSERT, UPDATE, DELETE
    for step in REVISIONS[REVISIONS.index(release.stem) + 1 :]:
        migrations.migrate(empty_database, step)
        assert asyncio.run(data(empty_database)) == before, step
        assert asyncio.run(trial(empty_database, statements)) == expected, step
    asyncio.run(starts(empty_database))
