"""A node whose way to the database can be disturbed, and a pair of devices that must not notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from tornado.ioloop import IOLoop

from harness.fault_proxy import FaultProxy
from tests.conftest import CONFIGURATION
from tests.devices import Site
from tests.faults.sites import ending, started

SOCKET = ".s.PGSQL.5432"


@pytest.fixture
def proxy(io_loop: IOLoop, database_url: str) -> Iterator[FaultProxy]:
    """Between the test's node and its database."""
    folder = parse_qs(urlsplit(database_url).query)["host"][0]
    made = FaultProxy(path=f"{folder}/{SOCKET}")
    io_loop.run_sync(made.start)
    yield made
    io_loop.run_sync(made.close)


@pytest.fixture
def far_url(proxy: FaultProxy, database_url: str) -> str:
    """The database's URL through the proxy."""
    parts = urlsplit(database_url)
    user = parts.netloc.rpartition("@")[0]
    return f"postgresql://{user}{'@' if user else ''}127.0.0.1:{proxy.port}{parts.path}"


@pytest.fixture
def far(io_loop: IOLoop, proxy: FaultProxy, far_url: str, database_url: str) -> Iterator[Site]:
    """A running node that reaches its database through the proxy."""
    config = replace(CONFIGURATION, message_rate=100_000, message_burst=100_000, frame_rate=100_000)
    site: Site = io_loop.run_sync(lambda: started(config, far_url))
    yield site
    proxy.heal()
    io_loop.run_sync(lambda: ending(site, database_url))
