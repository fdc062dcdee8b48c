"""A node whose audit log is sealed only when a test says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from tests.audit.sealing import SealedLog, sealing
from tests.devices import Site


@pytest.fixture
def sealed_log(io_loop: IOLoop, site: Site, tmp_path: Path) -> SealedLog:
    """Of a node that does nothing by itself, and remembers in `tmp_path`. Its log has two rows: that it has started."""

    async def begin() -> None:
        await site.node.audit.flush(system(utcnow()))

    io_loop.run_sync(begin)
    return sealing(site.node.backend, tmp_path)
