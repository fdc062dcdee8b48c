"""Traces: what is sent to a receiver of OTLP, what never is, and that they cost nothing where they are off."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto
from tornado.ioloop import IOLoop

from harness.program import program
from pairing_server import tracing
from pairing_server.server.server import Node
from pairing_server.tracing.otel import OtelTraces
from pairing_server.tracing.process import traces_of_process
from tests.cli.commands import Operator
from tests.cli.serving import serving
from tests.conftest import CONFIGURATION, execute
from tests.devices import Site
from tests.leaks import RUN
from tests.otlp import Receiver

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = PARENT.split("-")[1]
PASSWORD = "a password nobody may see"


class Traced:
    """A running node whose traces go to the receiver. `done` stops it, so that all of them have come."""

    def __init__(self, site: Site, receiver: Receiver, traces: tracing.Traces) -> None:
        self.site = site
        self.receiver = receiver
        self._traces = traces
        self._ended = False

    async def done(self) -> Receiver:
        if not self._ended:
            self._ended = True
            await self.site.node.stop()
            await self.site.close()
            await self._traces.stop()
            # The server does not wait for a slow receiver; here the last spans are what counts.
            for thread in threading.enumerate():
                if thread.name == "traces-stop":
                    await asyncio.to_thread(thread.join)
        return self.receiver


Start = Callable[..., Awaitable[Traced]]


@pytest.fixture
def start(io_loop: IOLoop, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    started: list[Traced] = []

    async def begin(**changed: Any) -> Traced:
        receiver = Receiver()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        traces = traces_of_process("1.2.3")
        node = Node(replace(CONFIGURATION, **changed), database_url, traces=traces)
        [(_, port), *_] = await node.start(timers=False)
        started.append(Traced(Site(node, port), receiver, traces))
        return started[-1]

    yield begin

    async def end(traced: Traced) -> None:
        await traced.done()
        await traced.receiver.close()

    for traced in started:
        io_loop.run_sync(lambda traced=traced: end(traced))


async def test_a_request_is_a_span_with_its_transactions_below_it(start: Start) -> None:
    traced = await start()
    account = await traced.site.account()
    answer = await traced.site.post(
        "/api/generate-pair-code", {"desktop_session_id": "desktop-1"}, account.token
    )
    receiver = await traced.done()
    span = receiver.one("POST /api/generate-pair-code")
    assert span.kind == Proto.SPAN_KIND_SERVER and span.parent_id == "" and not span.failed
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/generate-pair-code",
        "http.response.status_code": 200,
        "pairing.request_id": answer.headers["X-Request-ID"],
    }
    inner = receiver.below(span)
    assert inner and set(inner) <= {"database transaction", "database statement"}
    assert receiver.resources[0] == {"service.name": "pairing-server", "service.version": "1.2.3"}


async def test_a_refusal_says_its_code_and_a_url_only_its_form(start: Start) -> None:
    traced = await start()
    account = await traced.site.account()
    await traced.site.call("DELETE", "/api/logins/somebodys-name", None, account.token)
    await traced.site.get("/somewhere/secret-in-the-path?token=secret-in-the-query")
    receiver = await traced.done()
    span = receiver.one("DELETE /api/logins/{}")
    assert (span.attributes["http.response.status_code"], span.attributes["pairing.error"]) == (
        404,
        "NOT_FOUND",
    )
    assert receiver.one("GET").attributes["http.response.status_code"] == 404
    assert not [told for told in receiver.raw if "somebodys-name" in told or "secret" in told]


async def test_what_asks_every_second_is_no_span(start: Start) -> None:
    traced = await start()
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await traced.site.get(path)).status == 200
    assert [span for span in (await traced.done()).spans if span.name.startswith("GET")] == []


async def test_a_sockets_life_is_spans_and_its_messages_are_none(start: Start) -> None:
    traced = await start()
    desktop, mobile = await traced.site.pair()
    for number in range(50):
        desktop.socket.send({"type": "channel_message", "payload": {"n": number}})
    for _ in range(50):
        await mobile.socket.expect("channel_message")
    await desktop.socket.pending()
    receiver = await traced.done()
    upgrades, lives = receiver.named("GET /ws"), receiver.named("websocket")
    assert len(upgrades) == len(lives) == 2
    assert {span.attributes["http.response.status_code"] for span in upgrades} == {101}
    assert {span.parent_id for span in lives} == {span.span_id for span in upgrades}
    for life in lives:
        assert set(receiver.below(life)) == {"websocket join_channel"}
        assert life.attributes["pairing.close_code"] == 1012
        assert int(life.attributes["pairing.messages_received"]) >= 2
        assert life.attributes["pairing.connection_id"]
    for join in receiver.named("websocket join_channel"):
        assert set(receiver.below(join)) <= {"database transaction", "database statement"}
    sockets = [span.name for span in receiver.spans if span.name.startswith("websocket")]
    assert len(sockets) == 4, "50 messages, and not one span of them"


async def test_a_flush_of_the_audit_log_is_a_span(start: Start) -> None:
    traced = await start()
    await traced.site.account()
    await traced.site.events("system.started")
    flushes = (await traced.done()).named("audit flush")
    assert flushes and all(int(span.attributes["pairing.audit.events"]) > 0 for span in flushes)


async def test_a_trusted_proxys_traceparent_is_gone_on_with(start: Start) -> None:
    traced = await start(trusted_proxies=(ip_network("127.0.0.0/8"),))
    await traced.site.get("/openapi.json", Traceparent=PARENT, Tracestate="vendor=secret-of-a-vendor")
    receiver = await traced.done()
    span = receiver.one("GET /openapi.json")
    assert (span.trace_id, span.parent_id) == (TRACE_ID, PARENT.split("-")[2])
    assert not [told for told in receiver.raw if "secret-of-a-vendor" in told]


async def test_a_strangers_traceparent_is_not_believed(start: Start) -> None:
    traced = await start()
    await traced.site.get("/openapi.json", Traceparent=PARENT)
    span = (await traced.done()).one("GET /openapi.json")
    assert span.trace_id != TRACE_ID and span.parent_id == ""


@pytest.mark.parametrize("said", ["", "00-zz-zz-01", "x" * 5000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(start: Start, said: str) -> None:
    traced = await start(trusted_proxies=(ip_network("127.0.0.0/8"),))
    assert (await traced.site.get("/openapi.json", Traceparent=said)).status == 200
    assert (await traced.done()).one("GET /openapi.json").parent_id == ""


async def test_a_proxy_that_does_not_sample_is_heeded(start: Start) -> None:
    traced = await start(trusted_proxies=(ip_network("127.0.0.0/8"),))
    await traced.site.get("/openapi.json", Traceparent=PARENT[:-2] + "00")
    assert (await traced.done()).named("GET /openapi.json") == []


async def test_no_token_code_password_payload_or_name_is_in_any_span(start: Start) -> None:
    traced = await start(registration="open")
    site = traced.site
    names = {"username": "somebody-with-a-name", "password": PASSWORD}
    await site.post("/api/auth/register", names)
    await site.post("/api/auth/login", {**names, "password": PASSWORD + "!"})
    token = (await site.post("/api/auth/login", names)).body["token"]
    await site.get(f"/nowhere?token={token}")
    account = await site.account()
    code = await site.code(account, "desktop-secret-session")
    await site.redeem(account, "000000" if code != "000000" else "111111", "mobile-secret-session")
    await site.redeem(account, code, "mobile-secret-session")
    desktop = await site.join(account, "desktop", f"pair-{code}", "desktop-secret-session")
    mobile = await site.join(account, "mobile", f"pair-{code}", "mobile-secret-session")
    desktop.socket.send({"type": "channel_message", "payload": {"said": "a payload nobody may see"}})
    await mobile.socket.pending()
    (await site.open("no-token-at-all")).close()
    receiver = await traced.done()
    assert len(receiver.spans) > 15
    told = "\n".join(receiver.raw)
    assert RUN.secrets.found_in(told) == []
    # In the nanoseconds of a time any six digits may stand.
    assert not re.search(rf"(?<!\d){code}(?!\d)", told)
    for secret in (
        PASSWORD,
        f"pair-{code}",
        token,
        account.token,
        "somebody-with-a-name",
        "secret-session",
        "a payload",
        "127.0.0.1",
    ):
        assert secret not in told


async def test_a_database_that_is_away_fails_the_span_without_its_words(
    start: Start, database_url: str, postgres: str
) -> None:
    traced = await start()
    account = await traced.site.account()
    name = urlsplit(database_url).path[1:]
    admin = postgres.replace("/pairing?", "/postgres?")
    away = (
        f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    await asyncio.to_thread(execute, admin, *away)
    answer = await traced.site.post(
        "/api/generate-pair-code", {"desktop_session_id": "desktop-1"}, account.token
    )
    await asyncio.to_thread(execute, admin, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    assert answer.status == 503
    receiver = await traced.done()
    span = receiver.one("POST /api/generate-pair-code")
    assert span.failed and span.attributes["error.type"] == "503"
    assert span.attributes["pairing.error"] == "UNAVAILABLE"
    assert not [told for told in receiver.raw if name in told]


async def test_what_is_logged_within_a_span_says_which(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    kept = Kept()
    logging.getLogger().addHandler(kept)
    try:
        traced = await start()
        await traced.site.get("/openapi.json")
        span = (await traced.done()).one("GET /openapi.json")
    finally:
        logging.getLogger().removeHandler(kept)
    [line] = [line for line in lines if line.__dict__.get("route") == "/openapi.json"]
    assert (line.trace_id, line.span_id) == (span.trace_id, span.span_id)  # type: ignore[attr-defined]
    assert not [line for line in lines if "system.started" in line.getMessage() and hasattr(line, "trace_id")]


def test_a_protocol_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(
        tracing.TracesError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; this server speaks"
    ):
        OtelTraces("1")


# The real command


def imported(log: str) -> set[str]:
    """What a process imported, by the lines of PYTHONPROFILEIMPORTTIME."""
    lines = (line for line in log.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_off_nothing_of_opentelemetry_is_imported(database_url: str, tmp_path: Path) -> None:
    operator = Operator(database_url, tmp_path, PORT="0", LOG_FORMAT="json")
    environ = {**operator.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    with serving(environ, tmp_path, command=program()) as server:
        assert server.status("/openapi.json") == 200
        log = server.stop()
    assert "tornado" in imported(log)
    assert not imported(log) & {"opentelemetry", "google", "requests", "urllib3"}
    assert "trace_id" not in log


def test_a_receiver_that_is_away_costs_spans_and_nothing_else(database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    operator = Operator(database_url, tmp_path, PORT="0", LOG_FORMAT="json", TRACES="true")
    environ = {**operator.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    with serving(environ, tmp_path) as server:
        assert server.status("/openapi.json") == 200
        log = server.stop()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line.get("route") == "/openapi.json"]
    assert len(line["trace_id"]) == 32 and len(line["span_id"]) == 16
    assert "Traceback" not in log
