"""What is shipped: a wheel that works on its own, outside any checkout, and a source archive that makes the same wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import ROOT
from tests.cli.serving import Serving

# Seconds; what must be installed is fetched the first time.
PATIENCE = 300


def build(source: Path, into: Path, *kinds: str) -> None:
    targets = [option for kind in kinds for option in ("--target", kind)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(into), *targets]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist", "wheel")
    return folder


def wheel_in(folder: Path) -> Path:
    [found] = folder.glob("*.whl")
    return found


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(dist: Path) -> Iterator[Path]:
    """The command of the wheel in an environment that has nothing else. As root, PostgreSQL runs as another user,
    who cannot pass through pytest's own folder."""
    with tempfile.TemporaryDirectory(prefix="pairing-wheel-") as place:
        environment = Path(place) / "environment"
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
        pins = ROOT / "requirements" / "runtime.txt"
        install = [uv, "pip", "install", "--quiet", "--python", environment / "bin" / "python"]
        subprocess.run(
            [*install, "--constraint", pins, f"{wheel_in(dist)}[embedded]"], check=True, timeout=PATIENCE
        )
        yield environment / "bin" / "pairing-server"


def test_the_wheel_carries_migrations_documents_and_static_files(dist: Path) -> None:
    names = names_in(wheel_in(dist))
    for folder, shipped in (
        ("migrations", "pairing_server/migrations"),
        ("docs", "pairing_server/documents"),
        ("pairing_server/static", None),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                inner = path.relative_to(ROOT / folder).as_posix()
                assert f"{shipped or folder}/{inner}" in names
    assert not [
        name
        for name in names
        if name.startswith(("tests", "harness", "bench", "endure")) or "__pycache__" in name
    ]


def test_the_source_archive_makes_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    [source] = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    assert (unpacked / "scripts" / "install-systemd").exists()
    assert (unpacked / "deploy" / "systemd" / "pairing-server.service").exists()
    build(unpacked, tmp_path / "dist", "wheel")
    assert names_in(wheel_in(tmp_path / "dist")) == names_in(wheel_in(dist))


def test_from_the_wheel_alone_it_serves_anywhere_and_pairs(installed: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pairing-anywhere-") as place:
        # No PYTHONPATH: nothing of the checkout may be found.
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        server = Serving(environ, Path(place), "--port", "0", command=[str(installed)])
        try:
            assert server.status("/docs") == 200
            assert server.status("/docs/swagger-ui.css") == 200
            doctor = subprocess.run(
                [installed, "doctor", "--url", server.url],
                env=environ,
                cwd=place,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert doctor.returncode == 0, doctor.stdout + doctor.stderr
            assert "All right" in doctor.stdout
            assert '"stopped"' in server.stop()
        finally:
            server.close()


def test_traces_without_their_extra_are_refused_with_what_to_install(installed: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pairing-anywhere-") as place:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        done = subprocess.run(
            [installed, "serve", "--port", "0"],
            env={**kept, "PAIRING_TRACES": "true", "PAIRING_DATABASE_URL": "postgresql://127.0.0.1:1/none"},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert "PAIRING_TRACES is on, but OpenTelemetry is not installed" in done.stderr
    assert "pip install 'pairing-server[otel]'" in done.stderr
    assert "Traceback" not in done.stderr
