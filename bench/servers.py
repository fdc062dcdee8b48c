"""The servers that are measured: how each is started, and how its connections are made."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.load_client import Endpoint, Pair, frame_template
from harness.pairing_database import PairingDatabase
from harness.processes import NotStarted, Processes, free_port
from harness.program import ROOT, environment, program

PEERS = ROOT / "bench" / "peers"
OURS = "pairing-server"

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Server:
    """A started server. `pairs(count, size_bytes)`: new pairs, with messages of that size."""

    key: str
    title: str
    process: subprocess.Popen[bytes]
    port: int
    pairs: Callable[[int, int], list[Pair]]

    @property
    def pid(self) -> int:
        return self.process.pid


def start_ours(processes: Processes, database: PairingDatabase, core: int) -> Server:
    """Start the pairing server of this checkout. Raises NotStarted."""
    port = free_port()
    environ = {**environment(PORT=str(port)), **database.settings}
    process = processes.start(OURS, program("serve"), core, environ)
    return Server(
        OURS, "pairing server", process, port, lambda count, size: database.add_pairs(port, count, size)
    )


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server, which only relays. `endpoint(port, pair, side, size_bytes)`: one side of a pair.

    `command(port, folder)` starts it; raises NotStarted if something is not installed.
    """

    key: str
    title: str
    command: Callable[[int, Path], list[str]]
    endpoint: Callable[[int, str, str, int], Endpoint]

    def start(self, processes: Processes, folder: Path, core: int) -> Server:
        """Start the peer. Raises NotStarted."""
        port = free_port()
        process = processes.start(self.key, self.command(port, folder), core)

        def pairs(count: int, size_bytes: int) -> list[Pair]:
            names = [f"p{next(_numbers)}" for _ in range(count)]
            return [
                (self.endpoint(port, name, "a", size_bytes), self.endpoint(port, name, "b", size_bytes))
                for name in names
            ]

        return Server(self.key, self.title, process, port, pairs)


def _python(script: str) -> Callable[[int, Path], list[str]]:
    return lambda port, _: [sys.executable, str(PEERS / script), str(port)]


def _node(script: str, package: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, _: Path) -> list[str]:
        node = shutil.which("node")
        if node is None:
            raise NotStarted("Node.js is not installed")
        if not (Path(os.environ.get("NODE_PATH", "")) / package).is_dir():
            raise NotStarted(f"the npm package {package} is not installed")
        return [node, str(PEERS / script), str(port)]

    return command


def _nats(port: int, folder: Path) -> list[str]:
    nats = Path(sys.executable).with_name("nats-server")
    if not nats.exists():
        raise NotStarted("nats-server is not installed")
    settings = folder / "nats.conf"
    settings.write_text(
        f'listen: "127.0.0.1:{free_port()}"\n'
        f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}\n'
    )
    return [str(nats), "--config", str(settings)]


def _plain_endpoint(port: int, pair: str, side: str, size_bytes: int) -> Endpoint:
    before, after = frame_template("", "", size_bytes)
    return Endpoint(f"ws://127.0.0.1:{port}/{pair}/{side}", [("wait", "ready")], before, after)


def _socketio_endpoint(port: int, pair: str, side: str, size_bytes: int) -> Endpoint:
    url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket&member={pair}/{side}"
    before, after = frame_template('42["message",', "]", size_bytes)
    return Endpoint(url, [("wait", "0{"), ("send", "40"), ("wait", '42["ready"')], before, after)


def _nats_endpoint(port: int, pair: str, side: str, size_bytes: int) -> Endpoint:
    own, other = f"{pair}.{side}", f"{pair}.{'b' if side == 'a' else 'a'}"
    greeting = f'CONNECT {{"verbose":false,"pedantic":false}}\r\nSUB {own} 1\r\nPING\r\n'
    # The head holds the length of the body, whose number of digits does not depend on the head's own length.
    body = size_bytes - len(f"PUB {other} {size_bytes - 20}\r\n\r\n")
    before, after = frame_template(f"PUB {other} {body}\r\n", "\r\n", size_bytes)
    script = [("wait", "INFO"), ("send", greeting), ("wait", "PONG")]
    return Endpoint(f"ws://127.0.0.1:{port}/", script, before, after, binary=True)


PEER_LIST = (
    Peer("tornado", "stock Tornado", _python("tornado_relay.py"), _plain_endpoint),
    Peer("picows", "picows alone", _python("picows_relay.py"), _plain_endpoint),
    Peer("ws", "node ws", _node("ws_relay.cjs", "ws"), _plain_endpoint),
    Peer("socket.io", "Socket.IO", _node("socket_io_relay.cjs", "socket.io"), _socketio_endpoint),
    Peer("fastapi", "FastAPI, uvicorn", _python("fastapi_relay.py"), _plain_endpoint),
    Peer("python-socketio", "python-socketio", _python("socketio_relay.py"), _socketio_endpoint),
    Peer("nats", "nats-server", _nats, _nats_endpoint),
)
