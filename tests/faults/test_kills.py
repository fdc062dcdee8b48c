"""kill -9 under traffic, a few times; `scripts/endure kills` does it twenty times."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.commands import ROOT


def test_killed_under_traffic_it_starts_again_and_no_code_has_two_winners() -> None:
    command = [sys.executable, "-m", "bench.endure", "kills", "--rounds", "3"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "started 4 times" in done.stdout
