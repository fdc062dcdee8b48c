"""Talking with the service manager that has started us: the sockets it holds for us, and what it is told.

The two protocols of sd_notify(3) and sd_listen_fds(3), which systemd promises to keep. Started by anybody else,
there are no sockets, and what is told goes nowhere. No decision is made here.
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
# Seconds.
PATIENCE = 1.0
# What must not reach the processes that we start.
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivationError(Exception):
    """What was handed over is not what a server can listen on; the text is for the operator."""


class Notifier:
    """Tells the manager how the service is doing. Never fails: a manager may be gone.

    Only for changes of state it waits for a manager that is slow, and not long.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        """`address`: of NOTIFY_SOCKET. `watchdog`: seconds within which it wants a sign of life; None: it wants none."""
        self.watchdog = watchdog
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            try:
                # "@" stands for the NUL that begins the name of a socket in no folder.
                self._socket.connect(f"\0{address[1:]}" if address[0] == "@" else address)
            except OSError as error:
                log.warning("the service manager cannot be told anything: %s", error.strerror)
                self.close()

    @property
    def listens(self) -> bool:
        """Whether somebody is told."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Started, or done with reloading."""
        self._tell(f"READY=1\nSTATUS={status}", PATIENCE)

    def reloading(self) -> None:
        # systemd tells by the time which reload this is about.
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", PATIENCE)

    def stopping(self, status: str) -> None:
        self._tell(f"STOPPING=1\nSTATUS={status}", PATIENCE)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, message: str, patience: float = 0) -> None:
        if self._socket is None:
            return
        try:
            try:
                self._socket.send(message.encode())
            except BlockingIOError:
                select.select([], [self._socket], [], patience)
                self._socket.send(message.encode())
        except OSError as error:
            log.debug("the service manager was not told %r: %s", message.partition("\n")[0], error)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass(frozen=True, slots=True)
class Started:
    """How we were started. `sockets`: listening ones that are held for us, none if we open our own."""

    notifier: Notifier
    sockets: tuple[socket.socket, ...] = ()

    @property
    def supervised(self) -> bool:
        """Whether somebody is told, and starts us again if we end."""
        return self.notifier.listens


def started(environ: MutableMapping[str, str]) -> Started:
    """What the environment says; it is taken out of there. Call once. Raises ActivationError."""
    own = str(os.getpid())
    sockets = _sockets(environ) if environ.get("LISTEN_PID") == own else ()
    watchdog = _watchdog(environ) if environ.get("WATCHDOG_PID", own) == own else None
    address = environ.get("NOTIFY_SOCKET")
    for name in _VARIABLES:
        environ.pop(name, None)
    return Started(Notifier(address, watchdog), sockets)


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
    """The socket as our own: not waited for, and not handed on to the processes that we start."""
    try:
        found = socket.socket(fileno=number)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise ActivationError(
            f"The file descriptor {number} ({name}) that was handed over is no socket."
        ) from None
    if not listens or found.type != socket.SOCK_STREAM:
        raise ActivationError(
            f"The socket {name} that was handed over does not listen for connections."
            " Its unit needs ListenStream= and Accept=no."
        )
    found.setblocking(False)
    found.set_inheritable(False)
    return found
