"""Servers that the tests of a worker share: a process of their own, with a database of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.commands import Operator
from tests.cli.serving import serving
from tests.conftest import fresh_database


@contextmanager
def _served(postgres: str, folder: Path, registration: str) -> Iterator[str]:
    with contextmanager(fresh_database)(postgres, "pairing") as database_url:
        operator = Operator(database_url, folder, PORT="0", REGISTRATION=registration)
        with serving(operator.environ, folder) as server:
            yield server.url
            server.stop()


@pytest.fixture(scope="session")
def server_url(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with registration open."""
    with _served(postgres, tmp_path_factory.mktemp("open"), "open") as url:
        yield url


@pytest.fixture(scope="session")
def closed_server_url(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with registration closed."""
    with _served(postgres, tmp_path_factory.mktemp("closed"), "closed") as url:
        yield url
