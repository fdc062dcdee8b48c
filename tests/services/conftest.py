"""A node whose audit log is sealed only when a test says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.services.deps import Deps
from tests.audit.sealing import sealing
from tests.devices import Site


@pytest.fixture
def deps(io_loop: IOLoop, site: Site, tmp_path: Path) -> Deps:
    """Of a node that does nothing by itself, and remembers in `tmp_path`. Its log has two rows: that it has started."""

    async def begin() -> None:
        await site.node.audit.flush(system(utcnow()))

    io_loop.run_sync(begin)
    return sealing(site.node.deps, tmp_path)
