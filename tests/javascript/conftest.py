"""Runs a story of the JavaScript client under Node.js against a running node.

A story may ask for something to be done to the server: stop it, start it again.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from pairing_server.server.server import Node
from tests.browser.packages import lacking
from tests.devices import Site

HERE = Path(__file__).parent
NODE = shutil.which("node")


def _options() -> list[str] | None:
    """How this Node.js gets a WebSocket: by itself from 22 on, 20 with an option. None: not at all."""
    for options in ([], ["--experimental-websocket"]):
        tried = [
            NODE or "",
            "--no-warnings",
            *options,
            "-e",
            "new WebSocket('ws://127.0.0.1:1').onerror = () => {}",
        ]
        if NODE and subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return ["--no-warnings", *options]
    return None


Tell = Callable[..., Awaitable[None]]


def stories(file: str) -> list[str]:
    """The names of the stories in a file."""
    return re.findall(r"^  async (\w+)\(", (HERE / file).read_text("utf-8"), flags=re.MULTILINE)


class Stories:
    """One Node.js process, which runs one story at a time. It is started when it is needed, also after it has died."""

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def tell(
        self, file: str, story: str, given: dict[str, object], do: Callable[[str], Awaitable[None]]
    ) -> None:
        """Fail if the story does. `do` does what it asks for."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                str(NODE),
                *self._options,
                str(HERE / "runner.mjs"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        ended = False
        try:
            self._say(file=file, story=story, given=given)
            while True:
                line = await self._read()
                if ended := "ended" in line:
                    break
                await do(line["ask"])
                self._say()
        finally:
            if not ended:
                # The story may still run; the next one gets a process without it.
                await self.stop()
        assert line == {"ended": story, "error": None}, line["error"]

    async def stop(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._process = None

    def _say(self, **about: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(about).encode() + b"\n")

    async def _read(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "Node.js has ended; what it wrote is in the captured output"
        read: dict[str, Any] = json.loads(line)
        return read


@pytest.fixture(scope="session")
def node_js(io_loop: IOLoop) -> Iterator[Stories]:
    """The Node.js process of a worker."""
    options = _options()
    if options is None:
        lacking("Node.js 20.10 or newer was not found. On Debian and Ubuntu: apt-get install nodejs")
    running = Stories(options)
    yield running
    io_loop.run_sync(running.stop)


@pytest.fixture
def tell(request: pytest.FixtureRequest, node_js: Stories, database_url: str) -> Tell:
    """tell(site, file, story): fails with what Node.js says if the story does."""

    async def run(site: Site, file: str, story: str, **more: object) -> None:
        account = await site.account()

        async def do(what: str) -> None:
            shared = request.node.get_closest_marker("one_node")
            assert not shared, f"{story} restarts its server: it needs one of its own"
            await _do(site, what, database_url)

        await node_js.tell(file, story, {"base": site.url, "token": account.token, **more}, do)

    return run


async def _do(site: Site, what: str, database_url: str) -> None:
    if what == "stop":
        await site.node.stop()
    elif what == "start":
        site.node = Node(replace(site.node.config, port=site.port), database_url)
        await site.node.start(timers=False)
    else:
        raise AssertionError(f"a story asks for {what}")
