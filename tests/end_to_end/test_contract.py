"""The server keeps the contract that it shows at /openapi.json: schemathesis draws requests from it, good and bad.

All of its checks are on: no failure of the server, no status, header or body that the contract does not name, no
method that it lacks, no answer to those without a token, nothing bad accepted and nothing good refused.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.devices import Site
from tests.longer import count

EXAMPLES = count(2, 8)  # for each operation and phase
SEED = 20250914

# What a schema cannot say: which names are clean, what an address is, which cursors are ours.
CONFIG = """
[auth]
auto-signup = false

[[operations]]
include-path = "/api/auth/register"
checks.positive_data_acceptance.expected-statuses = ["2xx", "403", "409", "422", "429"]

[[operations]]
include-path-regex = "^/api/audit"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "422"]

[[operations]]
include-path = "/api/audit/follow"
parameters = { wait = 0 }
"""


async def explore(site: Site, folder: Path, *options: str) -> tuple[int | None, str]:
    """Let schemathesis loose on the server. Its status, 0 if it has found nothing, and what it says."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{site.url}/openapi.json", "--max-examples", str(EXAMPLES), "--seed", str(SEED)),
        *("--generation-database", "none", "--continue-on-failure", *options),
        # How busy the machine is says nothing about the server.
        *("--suppress-health-check", "too_slow", "--request-timeout", "60"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.parametrize("known", [True, False], ids=["an admin", "whoever has no token"])
def test_the_server_keeps_its_contract_with(site: Site, io_loop: IOLoop, tmp_path: Path, known: bool) -> None:
    async def contract() -> None:
        options = ["--phases", "fuzzing"]
        if known:
            account = await site.account(role="admin")
            # After a logout there would be nothing left to find.
            options = [
                *("--header", f"Authorization: Bearer {account.token}"),
                *("--exclude-path", "/api/auth/logout"),
            ]
        status, said = await explore(site, tmp_path, *options)
        assert status == 0, said
        counted = re.search(r"(\d+) generated, (\d+) passed", said)
        assert counted is not None, said
        assert int(counted[1]) == int(counted[2]) > 40

    # Not an async test: it takes longer than those may.
    io_loop.run_sync(contract, timeout=600)
