"""A restart beneath connected pairs, with the listening socket held as systemd holds it; scripts/drill-restart has figures."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import environment
from tests.drill import SETTINGS, drill
from tests.server.supervised import ServiceManager


async def test_pairs_are_back_after_a_restart_with_all_that_was_said_meanwhile(
    database_url: str, tmp_path: Path
) -> None:
    given = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path / "data"), **SETTINGS}
    manager = ServiceManager(environment(**given), tmp_path)
    try:
        outcome = await drill(manager, 4)
    finally:
        manager.close()
    assert outcome.closed == {1012: 8}, "each was closed once, and told to come back"
    assert outcome.refused == {}, "nobody was refused while no server ran"
    assert outcome.sent >= 8
    assert (outcome.missing, outcome.twice) == (0, 0)
