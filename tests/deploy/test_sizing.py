"""The sizing of docs/operations.md says what the code does, and computes rightly."""

from __future__ import annotations

from harness.program import ROOT
from pairing_server.db.database import POOL_SIZE
from pairing_server.server.backend import READERS
from pairing_server.services.expiry import PAIRINGS_KEPT, SESSIONS_KEPT
from tests.conftest import CONFIGURATION

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

SECTION = TEXT.partition("## Sizing\n")[2].partition("\n## ")[0]


def test_its_bounds_are_those_of_the_code() -> None:
    limits, connections = CONFIGURATION.connection_limits, POOL_SIZE + READERS + 1
    assert (
        f"| connections to PostgreSQL | {connections} | {POOL_SIZE}, {READERS} for reviewers, 1 that asks"
        in SECTION
    )
    assert f"a process keeps at most {connections} connections" in TEXT
    assert f"{connections} connections × processes" in SECTION
    assert limits.history_size == 1024**2
    assert f"{limits.history_count} × (a message and 150 bytes), 1 MiB at most" in SECTION
    assert f"`PAIRING_AUDIT_RETENTION`, {CONFIGURATION.audit_retention} days" in SECTION
    assert f"{PAIRINGS_KEPT.days} days after its end" in SECTION
    assert SESSIONS_KEPT.days == 365 and "a year after it was last seen" in SECTION
    unit = (ROOT / "deploy/systemd/pairing-server.service").read_text(encoding="utf-8")
    assert "MemoryHigh=1G" in unit and "MemoryMax=1536M" in unit and "(1 GB, 1.5 GB)" in SECTION


def test_its_example_is_computed_by_its_formulas() -> None:
    pairs, returns = 5000, 20_000
    connections = 2 * pairs
    assert f"10,000 × 20 µs = {connections * 20e-6:.1f} cores" in SECTION
    memory = 80e6 + connections * 20e3 + pairs * 256 * 650
    assert f"≈ {memory / 1e9:.1f} GB" in SECTION
    assert f"10,000 × 4 ms = {connections * 4e-3:.0f} s" in SECTION
    rows = 14 * pairs + 5 * returns
    assert f"× 0.6 KB × 400 = {rows * 600 * 400 / 1e9:.0f} GB" in SECTION
    assert f"or {rows * 600 * 90 / 1e9:.0f} GB with `PAIRING_AUDIT_RETENTION=90`" in SECTION
    assert f"5,000 × 30 × 0.8 KB = {pairs * 30 * 0.8 / 1e3:.0f} MB" in SECTION
