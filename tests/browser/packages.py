"""What comes from npm for these tests, in the versions that package-lock.json pins, and the client as its package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest

from pairing_server.web.client_files import CLIENT

HERE = Path(__file__).parent


def lacking(text: str) -> NoReturn:
    """Something must be installed for these tests."""
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def npm() -> str:
    return shutil.which("npm") or lacking("npm was not found. On Debian and Ubuntu: apt-get install npm")


def installed() -> Path:
    """The folder of the packages, installed into the environment once."""
    folder = Path(sys.prefix) / "node-browser-tests"
    lock = (HERE / "package-lock.json").read_bytes()
    stamp = folder / "installed.json"
    if not stamp.exists() or stamp.read_bytes() != lock:
        folder.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        subprocess.run(
            [npm(), "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True
        )
        stamp.write_bytes(lock)
    return folder / "node_modules"


class Workshop:
    """A folder of an app that has the packages and the packed client installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = folder / "node_modules"
        self.modules.mkdir()
        for package in installed().iterdir():
            if not package.name.startswith("."):
                (self.modules / package.name).symlink_to(package)
        self.packed = self._pack()

    def _pack(self) -> list[str]:
        """Install what `npm pack` makes of the client; the names in it."""
        told = subprocess.run(
            [npm(), "pack", "--json", "--pack-destination", self.folder],
            cwd=CLIENT,
            check=True,
            capture_output=True,
        )
        [about] = json.loads(told.stdout)
        with tarfile.open(self.folder / about["filename"]) as tar:
            tar.extractall(self.folder, filter="data")
        (self.folder / "package").rename(self.modules / about["name"])
        return sorted(file["path"] for file in about["files"])

    def bundle(self, source: str, *, minify: bool = False, loader: str = "jsx") -> str:
        """One script of an app's source, as bundlers make it. `import`s find the installed packages."""
        # debug.js is loaded only by who wants it: bundlers that split make a file of its own.
        options = [
            "--bundle",
            "--external:*/debug.js",
            "--format=esm",
            f"--loader={loader}",
            "--jsx=automatic",
            "--target=es2022",
        ]
        made = subprocess.run(
            [self.modules / "esbuild" / "bin" / "esbuild", *options, *(["--minify"] if minify else [])],
            cwd=self.folder,
            input=source,
            check=True,
            capture_output=True,
            text=True,
        )
        return made.stdout

    def complaints(self, *sources: str) -> list[str]:
        """What the TypeScript compiler has against each of an app's sources; empty if nothing."""
        names = [f"app{number}.tsx" for number in range(len(sources))]
        for name, source in zip(names, sources, strict=True):
            (self.folder / name).write_text(source, encoding="utf-8")
        options = ["--noEmit", "--strict", "--target", "es2022", "--module", "preserve", "--jsx", "react-jsx"]
        done = subprocess.run(
            ["node", self.modules / "typescript" / "bin" / "tsc", *options, *names],
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
        )
        found = dict.fromkeys(names, "")
        about = names[0]
        for line in done.stdout.splitlines():
            about = next((name for name in names if line.startswith(f"{name}(")), about)
            found[about] += f"{line}\n"
        return list(found.values())
