"""Connections by a database's URL: what becomes of its parameters, and which of several hosts they lead to."""

from __future__ import annotations

import socket

import pytest

from pairing_server.db.connection_parameters import read
from pairing_server.db.endpoints import Endpoints, keep_alive

SECRET = "s3cr3t-w0rd"


def test_with_several_hosts_one_that_takes_writes_is_wanted() -> None:
    assert Endpoints("postgresql://h1,h2/db", timeout=3).wanted == "read-write"
    assert Endpoints("postgresql://h1,h2/db?target_session_attrs=any", timeout=3).wanted == "any"
    assert Endpoints("postgresql://h1/db", timeout=3).wanted is None


def test_the_time_for_a_connection_is_shared_by_the_hosts_unless_the_url_has_one_for_each() -> None:
    assert Endpoints("postgresql://h1,h2/db", timeout=3)._timeout == 1.5
    given = Endpoints("postgresql://h1,h2/db?connect_timeout=8", timeout=3)
    assert (given._timeout, given.timeout) == (8, 16)
    assert Endpoints("postgresql://h1/db?connect_timeout=0", timeout=3).timeout == 3


async def shown(url: str, *names: str, **session: str) -> list[str]:
    """What the settings are in a connection."""
    connection = await Endpoints(url, timeout=3, **session).connect()
    try:
        return [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    finally:
        await connection.close()


async def test_a_connection_has_the_names_and_options_of_the_url(database_url: str) -> None:
    url = f"{database_url}&options=-c%20search_path%3Dapp%20-c%20work_mem%3D5MB"
    assert await shown(url, "search_path", "work_mem") == ["app", "5MB"]
    ours = {"application_name": "pairing-server", "statement_timeout": "4s"}
    assert await shown(database_url, *ours, **ours) == ["pairing-server", "4s"]
    assert await shown(f"{database_url}&fallback_application_name=f", *ours, **ours) == ["f", "4s"]
    named = f"{database_url}&application_name=a&fallback_application_name=f"
    assert await shown(named, *ours, **ours) == ["a", "4s"]


def test_a_connection_is_kept_alive_as_the_url_says() -> None:
    query = "keepalives_idle=61&keepalives_interval=7&keepalives_count=4&tcp_user_timeout=9000"
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as made,
    ):
        keep_alive(made, read(f"postgresql://h/db?{query}&keepalives=0", {}).values)
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        keep_alive(made, read(f"postgresql://h/db?{query}", {}).values)
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [made.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [61, 7, 4, 9000]


async def test_the_environment_of_the_server_changes_nothing_of_the_embedded_database(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {
        "PGHOST": "elsewhere.invalid",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGDATABASE": "other",
        "PGUSER": "other",
        "PGSSLMODE": "verify-full",
        "PGTARGETSESSIONATTRS": "standby",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    assert await shown(database_url, "port") == ["5432"]
