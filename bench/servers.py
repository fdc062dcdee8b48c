"""The servers beside ours: how each is started, and how a seat is taken there. All of them only relay."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.machine import ROOT
from bench.processes import NotStarted, Processes, free_port
from bench.wire import Pair, Seat, framed

PEERS = ROOT / "bench" / "peers"

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `pairs(count, size)`: seats that nobody has, with messages of that many bytes."""

    key: str
    title: str
    process: subprocess.Popen[bytes]
    port: int
    pairs: Callable[[int, int], list[Pair]]

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(frozen=True, slots=True)
class Peer:
    """`seat(port, pair, side, size)`: that side's seat. `command(port, folder)`: what starts the server.

    `command` raises NotStarted if something is not installed.
    """

    key: str
    title: str
    command: Callable[[int, Path], list[str]]
    seat: Callable[[int, str, str, int], Seat]

    def start(self, processes: Processes, folder: Path, core: int) -> Server:
        """Start the peer. Raises NotStarted."""
        port = free_port()
        process = processes.start(self.key, self.command(port, folder), core)

        def pairs(count: int, size: int) -> list[Pair]:
            names = [f"p{next(_numbers)}" for _ in range(count)]
            return [(self.seat(port, name, "a", size), self.seat(port, name, "b", size)) for name in names]

        return Server(self.key, self.title, process, port, pairs)


def _python(script: str) -> Callable[[int, Path], list[str]]:
    return lambda port, _: [sys.executable, str(PEERS / script), str(port)]


def _node(script: str, package: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, _: Path) -> list[str]:
        program = shutil.which("node")
        if program is None:
            raise NotStarted("Node.js is not installed")
        if not (Path(os.environ.get("NODE_PATH", "")) / package).is_dir():
            raise NotStarted(f"the npm package {package} is not installed")
        return [program, str(PEERS / script), str(port)]

    return command


def _nats(port: int, folder: Path) -> list[str]:
    program = Path(sys.executable).with_name("nats-server")
    if not program.exists():
        raise NotStarted("nats-server is not installed")
    settings = folder / "nats.conf"
    settings.write_text(
        f'listen: "127.0.0.1:{free_port()}"\n'
        f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}\n'
    )
    return [str(program), "--config", str(settings)]


def _plain_seat(port: int, pair: str, side: str, size: int) -> Seat:
    before, after = framed("", "", size)
    return Seat(f"ws://127.0.0.1:{port}/{pair}/{side}", [("wait", "ready")], before, after)


def _socketio_seat(port: int, pair: str, side: str, size: int) -> Seat:
    url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket&seat={pair}/{side}"
    before, after = framed('42["message",', "]", size)
    return Seat(url, [("wait", "0{"), ("send", "40"), ("wait", '42["ready"')], before, after)


def _nats_seat(port: int, pair: str, side: str, size: int) -> Seat:
    own, other = f"{pair}.{side}", f"{pair}.{'b' if side == 'a' else 'a'}"
    greeting = f'CONNECT {{"verbose":false,"pedantic":false}}\r\nSUB {own} 1\r\nPING\r\n'
    # The head holds the length of the body, which has as many digits whatever the head's own length is.
    body = size - len(f"PUB {other} {size - 20}\r\n\r\n")
    before, after = framed(f"PUB {other} {body}\r\n", "\r\n", size)
    script = [("wait", "INFO"), ("send", greeting), ("wait", "PONG")]
    return Seat(f"ws://127.0.0.1:{port}/", script, before, after, binary=True)


PEER_LIST = (
    Peer("tornado", "stock Tornado", _python("tornado_relay.py"), _plain_seat),
    Peer("picows", "picows alone", _python("picows_relay.py"), _plain_seat),
    Peer("ws", "node ws", _node("ws_relay.cjs", "ws"), _plain_seat),
    Peer("socket.io", "Socket.IO", _node("socket_io_relay.cjs", "socket.io"), _socketio_seat),
    Peer("fastapi", "FastAPI, uvicorn", _python("fastapi_relay.py"), _plain_seat),
    Peer("python-socketio", "python-socketio", _python("socketio_relay.py"), _socketio_seat),
    Peer("nats", "nats-server", _nats, _nats_seat),
)
