"""Tests many times, or with larger counts, for rules that a race may break once in many times."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from harness.program import ROOT

# The tests that take their counts from tests/longer.py.
LONGER = (
    "tests/websocket/test_crowd.py",
    "tests/cli/test_plain_errors.py",
    "tests/end_to_end/test_contract.py",
    "tests/faults/test_killed_while_recording.py",
    "tests/relay/settings/test_convergence.py",
    "tests/deploy/test_systemd_install.py",
)


def repeat(rounds: int, arguments: Sequence[str], say: Callable[[str], None]) -> bool:
    """Whether the tests have succeeded that many times. `arguments`: of pytest. The first failure ends it."""
    for number in range(1, rounds + 1):
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], cwd=ROOT, check=False)
        say(f"round {number} of {rounds}: {'failed' if done.returncode else 'succeeded'}")
        if done.returncode:
            return False
    return True


def longer(say: Callable[[str], None]) -> bool:
    """Whether the tests of LONGER have succeeded with their larger counts."""
    os.environ["LONGER"] = "1"
    return repeat(1, LONGER, say)
