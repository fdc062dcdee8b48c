"""scripts/install-systemd from beginning to end, below a folder of its own: install, upgrade, go back, remove, purge."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.program import ROOT
from tests.longer import LONGER

# Seconds; what must be installed is fetched the first time.
PATIENCE = 500
SCRIPT = str(ROOT / "scripts" / "install-systemd")
UNITS = sorted(path.name for path in (ROOT / "deploy" / "systemd").glob("*.s*") if path.is_file())


def wheel(folder: Path, version: str) -> str:
    """A wheel of this checkout that says it is of that version."""
    source = folder / f"source-{version}"
    source.mkdir()
    for name in ("pairing_server", "migrations", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "alembic.ini"):
        shutil.copy(ROOT / name, source / name)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    changed, count = re.subn(
        r'^version = ".*"$', f'version = "{version}"', project, count=1, flags=re.MULTILINE
    )
    assert count == 1
    (source / "pyproject.toml").write_text(changed, encoding="utf-8")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), "--target", "wheel"]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=PATIENCE)
    return str(folder / f"pairing_server-{version}-py3-none-any.whl")


def links_that_lead_nowhere(folder: Path) -> list[str]:
    """Relative links of the documents in a folder whose file is not there."""
    assert any(folder.glob("*.md"))
    return [
        f"{path.name}: {target}"
        for path in folder.rglob("*.md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]


class Machine:
    """What would be a machine's file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opt = root / "opt" / "pairing-server"
        self.settings = root / "etc" / "pairing-server" / "settings"
        self.data = root / "var" / "lib" / "private" / "pairing-server" / "jwt-keys"

    def install(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, "--root", str(self.root), *arguments],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def does(self, *arguments: str) -> str:
        done = self.install(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    @property
    def releases(self) -> dict[str, str]:
        """What is installed: the version, and its folder."""
        return {path.name.partition("-")[0]: path.name for path in self.opt.glob("*-*") if path.is_dir()}

    def says(self, *arguments: str) -> str:
        """What the command of the release that is started prints."""
        command = self.opt / "current" / "bin" / "pairing-server"
        return subprocess.run([command, *arguments], capture_output=True, text=True, check=True).stdout

    @property
    def runs(self) -> str:
        """What the release that is started says it is."""
        return self.says("--version").strip()

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }


@pytest.mark.parametrize("home", ["/home", "/srv"], ids=["in a home", "closed to others"])
def test_a_python_that_the_service_cannot_reach_is_refused(home: str, tmp_path: Path) -> None:
    """In a view of the file system of its own; should it be taken all the same, there is nothing to install."""
    prefix, name = Path(sys.executable).resolve().parents[1], Path(sys.executable).resolve().name
    (tmp_path / "pairing_server-9.0.0-py3-none-any.whl").touch()
    script = f"""
        set -e
        mount -t tmpfs -o mode=755 none {home}
        mkdir -m {"755" if home == "/home" else "700"} {home}/own
        mkdir {home}/own/python
        mount --bind {prefix} {home}/own/python
        mount -t tmpfs none /opt
        PYTHON={home}/own/python/bin/{name} PIP_NO_INDEX=1 exec {SCRIPT} {tmp_path}/*.whl
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("needs the right to make a view of the file system")
    assert done.returncode == 1
    assert f"its user cannot reach {home}/own" in done.stderr and "PYTHON=/usr/bin/python3" in done.stderr


def test_it_is_installed_and_removed_without_a_trace(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    first = wheel(tmp_path, "1.0.0")

    assert "nothing was started" in machine.does(first)
    assert machine.runs == "pairing-server, version 1.0.0"
    files = machine.files()
    assert {f"etc/systemd/system/{name}" for name in UNITS} <= files
    assert len(UNITS) == 4
    assert (tmp_path / "machine/usr/local/sbin/pairing-server").stat().st_mode & 0o777 == 0o755
    assert machine.settings.read_text() == (ROOT / "deploy/systemd/settings").read_text()
    documents = machine.opt / "doc"
    assert (documents / "operations.md").exists() and links_that_lead_nowhere(documents) == []
    [wheels_own] = (machine.opt / "current" / "lib").glob("python*/site-packages/pairing_server/documents")
    assert links_that_lead_nowhere(wheels_own) == []
    helped = machine.says("config", "--help")
    assert f"{wheels_own.resolve()}/operations.md, Settings" in helped

    # What is the operator's from then on.
    machine.settings.write_text("PAIRING_CODE_TTL=60\n")
    machine.data.parent.mkdir(parents=True)
    machine.data.write_text("k1:secret\n")

    # What each of several processes has made, by a release before.
    seal_key = machine.settings.parent / "audit-seal-key"
    for port in ("8090", "8091"):
        made = machine.root / "var" / "lib" / "private" / f"pairing-server-{port}" / "audit-seal-key"
        made.parent.mkdir(parents=True)
        made.write_text(f"ed25519:{port}\n")

    # Again: nothing is done, but that all processes get one key to seal with. Without an index nothing could be.
    before = (machine.opt / machine.releases["1.0.0"] / "complete").stat().st_mtime_ns
    assert machine.install(first, PIP_NO_INDEX="1").returncode == 0
    assert (machine.opt / machine.releases["1.0.0"] / "complete").stat().st_mtime_ns == before
    assert seal_key.read_text() == "ed25519:8090\n"
    assert seal_key.stat().st_mode & 0o777 == 0o600
    seal_key.write_text("the operator's\n")

    # One that cannot be installed changes nothing that runs.
    broken = tmp_path / "pairing_server-9.0.0-py3-none-any.whl"
    broken.write_text("no wheel")
    failed = machine.install(str(broken), PIP_NO_INDEX="1")
    assert failed.returncode == 1 and "what ran before still runs" in failed.stderr
    assert machine.runs == "pairing-server, version 1.0.0"

    told = machine.does("--remove")
    assert "settings are still in" in told and "--purge removes both" in told
    kept = (machine.settings, machine.data, seal_key, *machine.root.glob("var/lib/private/*/audit-seal-key"))
    assert machine.files() == {str(path.relative_to(machine.root)) for path in kept}
    assert not machine.opt.exists()

    assert "removed, with settings and data" in machine.does("--remove", "--purge")
    assert machine.files() == set()
    assert not machine.settings.parent.exists() and not machine.data.parent.exists()


@pytest.mark.skipif(not LONGER, reason="installs twice: scripts/endure longer")
def test_an_upgrade_keeps_the_release_before_and_goes_back_to_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    first, second = wheel(tmp_path, "1.0.0"), wheel(tmp_path, "1.1.0")
    machine.does(first)
    machine.settings.write_text("PAIRING_CODE_TTL=60\n")
    # One from before, which is not needed any more.
    (machine.opt / "0.9.0-0123456789ab").mkdir()
    machine.does(second)
    assert machine.runs == "pairing-server, version 1.1.0"
    assert set(machine.releases) == {"1.0.0", "1.1.0"}, "the one before stays, older ones go"
    assert machine.settings.read_text() == "PAIRING_CODE_TTL=60\n"

    # A way back that needs nothing from outside.
    assert machine.install(first, PIP_NO_INDEX="1").returncode == 0
    assert machine.runs == "pairing-server, version 1.0.0"
    assert set(machine.releases) == {"1.0.0", "1.1.0"}
