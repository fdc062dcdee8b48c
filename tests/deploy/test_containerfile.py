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


def test_nothing_but_what_it_copies_goes_into_the_build() -> None:
    """Neither the environment nor data with keys; the ignore file leaves out all that it does not name."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    named = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        name
        for line in LINES
        if line.startswith("COPY ") and "--from=" not in line
        for name in shlex.split(line)[1:-1]
    }
    assert named == copied


def test_how_it_is_built_keeps_its_health_check() -> None:
    """podman's own form of images has none."""
    for file in ("deploy/Containerfile", "docs/operations.md"):
        builds = re.findall(r"podman build [^\n`]*", (ROOT / file).read_text(encoding="utf-8"))
        assert builds and all("--format docker" in build for build in builds), file
    assert any(line.startswith("HEALTHCHECK ") for line in LINES)


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
