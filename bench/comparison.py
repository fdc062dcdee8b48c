"""The relay of two checkouts in turn: the server's CPU of one as a share of the other's, in each round."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.connections import RELAY, relay_once
from bench.load import Load
from bench.run import Scale
from bench.servers import Server
from harness.load_client import Pair
from harness.pairing_database import RAISED_LIMITS, pairing_endpoint
from harness.processes import Processes, free_port
from pairing_server.client import PairingClient

PASSWORD = "a long enough password"


def start_checkout(processes: Processes, checkout: Path, core: int, database_url: str) -> Server:
    """Migrate the database and start the server of that checkout, in its own environment if it has one.

    Raises NotStarted.
    """
    python = checkout / ".venv" / "bin" / "python"
    command = [str(python) if python.exists() else sys.executable, "-m", "pairing_server"]
    port = free_port()
    environ = {
        **_known_settings([*command, "config"], checkout),
        "PYTHONPATH": str(checkout),
        "PAIRING_CODES_PER_USER": "1000000",
        "PAIRING_REGISTRATION": "open",
        "PAIRING_JWT_KEYS": f"k1:{'s' * 32}",
        "PAIRING_DATABASE_URL": database_url,
        "PAIRING_PORT": str(port),
    }
    subprocess.run([*command, "migrate"], env=environ, cwd="/", check=True, capture_output=True)
    key = f"checkout-{port}"
    process = processes.start(key, [*command, "serve"], core, environ)
    processes.await_port(key, process, port)
    access = asyncio.run(_log_in(f"http://127.0.0.1:{port}"))
    return Server(
        key, str(checkout), process, port, lambda count, size: asyncio.run(_pairs(port, access, count, size))
    )


def _known_settings(command: list[str], checkout: Path) -> dict[str, str]:
    """Those of the raised limits that the checkout has: it does not start with a setting that it does not know."""
    environ = {"PYTHONPATH": str(checkout)}
    told = subprocess.run(command, env=environ, cwd="/", check=True, capture_output=True, text=True).stdout
    names = {line.partition("=")[0] for line in told.splitlines()}
    return {name: value for name, value in RAISED_LIMITS.items() if name in names}


async def _log_in(url: str) -> str:
    """The access token of a new account."""
    with PairingClient(url, "desktop") as client:
        await client.register("bench", PASSWORD)
        await client.login("bench", PASSWORD)
        return str(client.access_token)


async def _pairs(port: int, access: str, count: int, size_bytes: int) -> list[Pair]:
    """New pairs, made over HTTP: another checkout may have other tables."""
    url = f"http://127.0.0.1:{port}"

    async def pair() -> Pair:
        with (
            PairingClient(url, "desktop", access_token=access) as desktop,
            PairingClient(url, "mobile", access_token=access) as mobile,
        ):
            channel = await mobile.redeem((await desktop.generate_code()).code)
            sender, receiver = [
                pairing_endpoint(
                    f"ws://127.0.0.1:{port}/ws?token={await client.ws_token()}",
                    {"device_type": client.device_type, "session_id": client.session_id},
                    channel,
                    size_bytes,
                )
                for client in (desktop, mobile)
            ]
            return sender, receiver

    return [await pair() for _ in range(count)]


def compare(this: Server, other: Server, load: Load, scale: Scale, say: Callable[[str], None]) -> str:
    """Measure the two in turn, `scale.rounds` times; the table. Raises JobFailed."""
    used: dict[str, list[tuple[float, float]]] = {kind.name: [] for kind in RELAY}
    for server in (this, other):
        relay_once(load, scale, server, RELAY[1])
    for number in range(scale.rounds):
        for kind in RELAY:
            # Each comes first in every other round.
            order = (this, other) if number % 2 == 0 else (other, this)
            cpu = {server.key: relay_once(load, scale, server, kind)["cpu_us"] for server in order}
            used[kind.name].append((cpu[this.key], cpu[other.key]))
            say(
                f"{kind.name}: {cpu[this.key]:.2f} and {cpu[other.key]:.2f} µs of CPU,"
                f" {cpu[this.key] / cpu[other.key]:.3f}"
            )
    return table(used, this.title, other.title)


def table(used: dict[str, list[tuple[float, float]]], this: str, other: str) -> str:
    """Medians of the rounds, and the share of the least disturbed ones, in Markdown.

    `used`: µs of CPU of this and of the other, by benchmark and round.
    """
    lines = [
        f"A: {this}; B: {other}; medians of the rounds.",
        "",
        "| benchmark | A: CPU, µs each | B: CPU, µs each | A / B | of the least | in each round |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, rounds in used.items():
        shares = [one / another for one, another in rounds]
        a, b = zip(*rounds, strict=True)
        each = ", ".join(f"{share:.3f}" for share in shares)
        lines.append(
            f"| {name} | {median(a):.2f} | {median(b):.2f} | {median(shares):.3f} | {min(a) / min(b):.3f} | {each} |"
        )
    return "\n".join(lines)
