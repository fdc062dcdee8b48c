"""The protocols of the service manager: notifications to it, and sockets from it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import ROOT
from pairing_server.server.systemd import Notifier, take_activation


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def test_each_state_is_sent_in_the_managers_words(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    notifier.ready("2 connections")
    notifier.alive()
    notifier.reloading()
    notifier.status("3 connections")
    notifier.stopping("bye")
    sent = [manager.recv(1000).decode() for _ in range(5)]
    notifier.close()
    assert sent[:2] == ["READY=1\nSTATUS=2 connections", "WATCHDOG=1"]
    reloading, _, monotonic = sent[2].partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1" and int(monotonic) > 0
    assert sent[3:] == ["STATUS=3 connections", "STOPPING=1\nSTATUS=bye"]


def test_an_abstract_socket_is_reached_as_well() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0pairing-server-test-{os.getpid()}")
        listening.settimeout(5)
        notifier = Notifier(f"@pairing-server-test-{os.getpid()}")
        notifier.alive()
        assert listening.recv(100) == b"WATCHDOG=1"
        notifier.close()


def test_a_manager_that_does_not_read_is_not_waited_for(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    sent = 5000
    for _ in range(sent):
        notifier.status("x" * 1000)
    read = 0
    manager.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while manager.recv(2000):
            read += 1
    assert 0 < read < sent
    # What was dropped costs no later notification.
    notifier.alive()
    assert manager.recv(100) == b"WATCHDOG=1"
    notifier.close()


@pytest.mark.parametrize("address", [None, "/nonexistent/notify"])
def test_without_a_manager_nothing_is_sent_and_nothing_fails(address: str | None) -> None:
    notifier = Notifier(address)
    assert not notifier.connected
    notifier.ready("fine")
    notifier.close()


def test_the_variables_of_an_activation_are_removed_from_the_environment(manager: socket.socket) -> None:
    environ = {
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "http",
        "PATH": "/bin",
    }
    activation = take_activation(environ)
    assert environ == {"PATH": "/bin"}
    assert activation.supervised and activation.notifier.watchdog == 30
    assert activation.sockets == (), "they were meant for another process"
    activation.notifier.close()


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}]
)
def test_a_watchdog_that_is_not_ours_is_not_fed(environ: dict[str, str]) -> None:
    assert take_activation(dict(environ)).notifier.watchdog is None


# What a process says about the sockets it was given: the numbers from 3 on are its own only after exec.
_GIVEN = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
from pairing_server.server.systemd import ActivationError, take_activation
try:
    [found] = take_activation(os.environ).sockets
    print(found.getsockname()[1], found.getblocking(), found.get_inheritable())
except ActivationError as error:
    print(error)
"""


def said_of(given: socket.socket | int) -> str:
    number = given if isinstance(given, int) else given.fileno()
    done = subprocess.run(
        [sys.executable, "-c", _GIVEN, str(number)],
        pass_fds=[number],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_socket_that_is_handed_over_is_non_blocking_and_not_inherited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert said_of(listening) == f"{listening.getsockname()[1]} False False"


def test_a_descriptor_that_does_not_listen_is_refused_with_what_to_change(manager: socket.socket) -> None:
    with socket.socket() as unbound:
        assert said_of(unbound) == (
            "The socket http that was handed over does not listen for connections."
            " Its unit needs ListenStream= and Accept=no."
        )
    assert "does not listen" in said_of(manager)
    read, write = os.pipe()
    assert said_of(read) == "The file descriptor 3 (http) that was handed over is not a socket."
    os.close(read)
    os.close(write)
