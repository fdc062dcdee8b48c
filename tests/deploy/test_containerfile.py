"""deploy/Containerfile is not built here; what can be known without building it."""

from __future__ import annotations

import re
import shlex

from harness.program import ROOT
from pairing_server.config import NAMES, Configuration

TEXT = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]


def test_everything_it_copies_is_in_the_checkout() -> None:
    copied = [shlex.split(line)[1:-1] for line in LINES if line.startswith("COPY ") and "--from=" not in line]
    assert sum(map(len, copied)) >= 7
    assert all((ROOT / name).exists() for names in copied for name in names)


def test_it_copies_all_that_the_wheel_is_made_of() -> None:
    needed = re.findall(
        r'^(?:readme = "(.*?)"|license-files = \["(.*?)"\])', (ROOT / "pyproject.toml").read_text(), re.M
    )
    assert {"README.md", "LICENSE"} == {name for pair in needed for name in pair if name}
    assert all(
        f" {name}" in TEXT
        for name in ("README.md", "LICENSE", "migrations", "pairing_server", "pyproject.toml")
    )


def test_it_exposes_and_asks_the_port_that_the_server_listens_on() -> None:
    port = Configuration().port
    assert f"EXPOSE {port}" in LINES
    assert f"http://127.0.0.1:{port}/healthz" in TEXT


def test_it_sets_settings_that_exist_and_runs_as_an_ordinary_user() -> None:
    assert set(re.findall(r"\b(PAIRING_[A-Z_]+)=[^…]", TEXT)) <= set(NAMES)
    assert [line for line in LINES if line.startswith("USER ")] == ["USER pairing-server"]
    assert 'ENTRYPOINT ["pairing-server"]' in LINES
