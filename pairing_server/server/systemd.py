"""The protocols of the service manager: sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3).

A process that no manager has started gets no sockets, and its notifications go nowhere. No decision is made here.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

FIRST_FD = 3
# How long a slow manager is waited for.
SEND_TIMEOUT_SECONDS = 1.0
# Child processes must not get these.
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivationError(Exception):
    """A server cannot listen on what was handed over. The text is for the operator."""


class Notifier:
    """Sends the state of the service to the manager. It never raises: the manager may be gone.

    A change of state waits up to SEND_TIMEOUT_SECONDS for a slow manager, the other notifications do not.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        """`address`: that of NOTIFY_SOCKET. `watchdog`: seconds within which it must be fed; None without a watchdog."""
        self.watchdog = watchdog
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            try:
                # "@" stands for the NUL that begins the name of an abstract socket.
                self._socket.connect(f"\0{address[1:]}" if address[0] == "@" else address)
            except OSError as error:
                log.warning("service manager unreachable", extra={"error": error.strerror})
                self.close()

    @property
    def connected(self) -> bool:
        """Whether there is a manager."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """The start or a reload is done."""
        self._send(f"READY=1\nSTATUS={status}", SEND_TIMEOUT_SECONDS)

    def reloading(self) -> None:
        # From the time systemd knows which reload this is about.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", SEND_TIMEOUT_SECONDS)

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}", SEND_TIMEOUT_SECONDS)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str, timeout: float = 0) -> None:
        if self._socket is None:
            return
        try:
            try:
                self._socket.send(message.encode())
            except BlockingIOError:
                select.select([], [self._socket], [], timeout)
                self._socket.send(message.encode())
        except OSError as error:
            log.debug(
                "notification failed", extra={"notification": message.partition("\n")[0], "error": str(error)}
            )

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass(frozen=True, slots=True)
class Activation:
    """What the service manager gave to the process. `sockets` listen already; without any, the server opens its own."""

    notifier: Notifier
    sockets: tuple[socket.socket, ...] = ()

    @property
    def supervised(self) -> bool:
        """Whether a manager is there, which starts the process again when it ends."""
        return self.notifier.connected


def take_activation(environ: MutableMapping[str, str]) -> Activation:
    """The activation from the environment, whose variables are removed: call it once. Raises ActivationError."""
    own = str(os.getpid())
    sockets = _sockets(environ) if environ.get("LISTEN_PID") == own else ()
    watchdog = _watchdog(environ) if environ.get("WATCHDOG_PID", own) == own else None
    address = environ.get("NOTIFY_SOCKET")
    for name in _VARIABLES:
        environ.pop(name, None)
    return Activation(Notifier(address, watchdog), sockets)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdecimal() and int(text) else None


def _sockets(environ: Mapping[str, str]) -> tuple[socket.socket, ...]:
    count = environ.get("LISTEN_FDS", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return tuple(
        _listening(FIRST_FD + n, names[n] if n < len(names) else "unknown")
        for n in range(int(count) if count.isdecimal() else 0)
    )


def _listening(number: int, name: str) -> socket.socket:
    """The socket, non-blocking, and not inherited by child processes."""
    try:
        found = socket.socket(fileno=number)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise ActivationError(
            f"The file descriptor {number} ({name}) that was handed over is not a socket."
        ) from None
    if not listens or found.type != socket.SOCK_STREAM:
        raise ActivationError(
            f"The socket {name} that was handed over does not listen for connections."
            " Its unit needs ListenStream= and Accept=no."
        )
    found.setblocking(False)
    found.set_inheritable(False)
    return found
