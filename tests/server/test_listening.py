"""Where a server listens."""

from __future__ import annotations

import socket
from dataclasses import replace

from pairing_server.server.server import check_address, listening_sockets
from tests.conftest import CONFIGURATION


def port_of(listening: list[socket.socket]) -> int:
    [port] = {one.getsockname()[1] for one in listening}
    return int(port)


def test_on_all_addresses_ipv4_is_among_them() -> None:
    listening = listening_sockets(replace(CONFIGURATION, host="::"))
    try:
        port = port_of(listening)
        families = {one.family for one in listening}
        assert socket.AF_INET in families
        with socket.create_connection(("127.0.0.1", port)) as client:
            # It is seen as what it is, and not as IPv6's form of it.
            accepted, (address, *_) = next(one for one in listening if one.family == socket.AF_INET).accept()
            accepted.close()
            assert address == client.getsockname()[0] == "127.0.0.1"
        if socket.AF_INET6 in families:
            socket.create_connection(("::1", port)).close()
    finally:
        for one in listening:
            one.close()


def test_one_address_is_that_address_alone() -> None:
    [one] = listening_sockets(replace(CONFIGURATION, host="127.0.0.1"))
    with one:
        assert one.getsockname()[0] == "127.0.0.1"


def test_looking_whether_a_port_is_free_leaves_it_free() -> None:
    """The error for a port that is taken is tested in tests/cli/test_serve.py."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        config = replace(CONFIGURATION, host="127.0.0.1", port=free.getsockname()[1])
    check_address(config)
    [one] = listening_sockets(config)
    with one, socket.create_connection(("127.0.0.1", config.port)) as client:
        accepted, address = one.accept()
        accepted.close()
        assert address == client.getsockname()
