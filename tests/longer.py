"""How often a test repeats what it does: seldom in `scripts/test`, often in `scripts/endure longer`."""

from __future__ import annotations

import os

LONGER = os.environ.get("LONGER") == "1"


def count(usual: int, longer: int) -> int:
    """`usual` in `scripts/test`, `longer` in `scripts/endure longer`."""
    return longer if LONGER else usual
