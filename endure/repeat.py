"""Tests again and again, for rules that a race may break once in many times. The first failure ends it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

from harness.program import ROOT


def repeat(rounds: int, arguments: Sequence[str], say: Callable[[str], None]) -> bool:
    """Whether the tests have succeeded that many times. `arguments`: of pytest."""
    for number in range(1, rounds + 1):
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], cwd=ROOT, check=False)
        say(f"round {number} of {rounds}: {'failed' if done.returncode else 'succeeded'}")
        if done.returncode:
            return False
    return True
