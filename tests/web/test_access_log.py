"""The access log: one event a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.devices import Site

pytestmark = pytest.mark.one_node


class Requests(logging.Handler):
    """Keeps the events of the access log."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def taken(self, *names: str) -> list[tuple[Any, ...]]:
        """Those fields of each request since the last call."""
        found, self.records = [vars(record) for record in self.records], []
        assert all(fields["msg"] == "request" and fields["ms"] >= 0 for fields in found)
        return [tuple(fields[name] for name in names) for fields in found]


@pytest.fixture
def requests() -> Iterator[Requests]:
    logger, handler = logging.getLogger("pairing_server.access"), Requests()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


async def test_a_request_is_an_event_with_fields(site: Site, requests: Requests) -> None:
    absent = "0" * 8 + "-0000-0000-0000-" + "0" * 12
    await site.call("DELETE", f"/api/pairings/{absent}?token=secret")
    assert requests.taken("levelname", "method", "route", "path", "status", "address") == [
        ("INFO", "DELETE", "/api/pairings/{}", f"/api/pairings/{absent}", 401, "127.0.0.1")
    ]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/docs", "/docs"),
        ("/docs/init.js", "/docs/{}"),
        ("/client/pairing.js", "/client/{}"),
        ("/audit", "/audit"),
        ("/audit/main.js", "/audit/{}"),
        ("/nothing-here", "unmatched"),
        ("/api/pairings/not-an-id", "unmatched"),
    ],
)
async def test_the_route_of_a_url_has_no_part_that_a_client_chose(
    site: Site, requests: Requests, path: str, route: str
) -> None:
    await site.get(path)
    assert requests.taken("route", "path") == [(route, path)]


async def test_what_monitors_ask_is_logged_for_debugging_only(site: Site, requests: Requests) -> None:
    site.node.app.draining = True
    try:
        for path in ("/healthz", "/readyz", "/metrics"):
            await site.get(path)
    finally:
        site.node.app.draining = False
    assert requests.taken("route", "levelname", "status") == [
        ("/healthz", "DEBUG", 200),
        ("/readyz", "DEBUG", 503),
        ("/metrics", "DEBUG", 200),
    ]


async def test_a_method_and_a_path_of_any_bytes_are_one_line(site: Site, requests: Requests) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"G\x1bT /a\x9b\xc3\xa4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    for method, path in requests.taken("method", "path"):
        assert method.isprintable() and path.isprintable()
