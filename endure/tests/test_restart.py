"""A restart with connected pairs, on a listening socket that outlives the server; scripts/drill-restart has figures."""

from __future__ import annotations

from endure import restart
from harness.processes import run_folder


def test_pairs_are_back_after_a_restart_with_all_messages_sent_meanwhile() -> None:
    with run_folder("pairing-restart-") as (folder, _):
        outcome = restart.run(folder, 4)
    assert outcome.closed == {1012: 8}, "each connection was closed once, with the code to come back"
    assert outcome.refused == {}, "no connection was refused while no server ran"
    assert outcome.sent >= 8
    assert (outcome.missing, outcome.twice) == (0, 0)
