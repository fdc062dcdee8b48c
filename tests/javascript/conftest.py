"""Runs a story of the JavaScript client under Node.js against a running node.

A story may ask for something to be done to the server: stop it, start it again.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

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


OPTIONS = _options()
Tell = Callable[..., Awaitable[None]]


def stories(file: str) -> list[str]:
    """The names of the stories in a file."""
    return re.findall(r"^  async (\w+)\(", (HERE / file).read_text("utf-8"), flags=re.MULTILINE)


@pytest.fixture
def tell(database_url: str) -> Tell:
    """tell(site, file, story): fails with what Node.js says if the story does."""
    if OPTIONS is None:
        lacking("Node.js 20.10 or newer was not found. On Debian and Ubuntu: apt-get install nodejs")
    options = OPTIONS

    async def run(site: Site, file: str, story: str, **more: object) -> None:
        account = await site.account()
        given = json.dumps({"base": site.url, "token": account.token, **more})
        process = await asyncio.create_subprocess_exec(
            str(NODE),
            *options,
            str(HERE / file),
            story,
            given,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        errors = asyncio.create_task(process.stderr.read())
        last: dict[str, str] = {}
        try:
            while line := await process.stdout.readline():
                last = json.loads(line)
                if "ask" in last:
                    await _do(site, last["ask"], database_url)
                    process.stdin.write(b"{}\n")
            assert last == {"done": story}, (await errors).decode()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await errors

    return run


async def _do(site: Site, what: str, database_url: str) -> None:
    if what == "stop":
        await site.node.stop()
    elif what == "start":
        site.node = Node(replace(site.node.config, port=site.port), database_url)
        await site.node.start(timers=False)
    else:
        raise AssertionError(f"a story asks for {what}")
