"""kill -9 of the server and its PostgreSQL under traffic, once; `scripts/endure kills` does it twenty times."""

from __future__ import annotations

from endure import kills
from harness.processes import run_folder


def test_killed_under_traffic_it_starts_again_and_no_code_has_two_winners() -> None:
    said: list[str] = []
    with run_folder("pairing-kills-") as (folder, _):
        assert kills.check(folder, 1, 1, said.append), said
    assert said[0].startswith("started 2 times")
