"""A receiver of OTLP over HTTP, as a collector is one: what it is sent is decoded and kept."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

Value = str | int | bool


@dataclass(frozen=True)
class Received:
    """One span as it came; ids in hex, empty where there is none."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Value]
    took_ns: int


class Receiver:
    """Listens on the loopback; `spans` have come, `resources` are those that sent them."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.resources: list[dict[str, Value]] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[str] = []
        self._server = HTTPServer(Application([(r"/v1/traces", _Traces, {"receiver": self})]))
        [listening] = bind_sockets(0, "127.0.0.1")
        self._server.add_sockets([listening])
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.raw.append(str(request))
        for resource in request.resource_spans:
            self.resources.append(
                {item.key: item.value.string_value for item in resource.resource.attributes}
            )
            for scope in resource.scope_spans:
                self.spans += [_received(span) for span in scope.spans]

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Received:
        found = self.named(name)
        assert len(found) == 1, (name, [span.name for span in self.spans])
        return found[0]

    def below(self, parent: Received) -> list[str]:
        """The names of the spans right below it."""
        return [span.name for span in self.spans if span.parent_id == parent.span_id]

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()


class _Traces(RequestHandler):
    def initialize(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def post(self) -> None:
        assert self.request.headers["Content-Type"] == "application/x-protobuf"
        self._receiver.headers.append(dict(self.request.headers))
        self._receiver.take(self.request.body)
        self.set_header("Content-Type", "application/x-protobuf")
        self.finish(ExportTraceServiceResponse().SerializeToString())


def _received(span) -> Received:  # type: ignore[no-untyped-def]  # protobuf's classes are made at run time
    attributes: dict[str, Value] = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        attributes[item.key] = getattr(item.value, kind)
    return Received(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        failed=span.status.code == 2,
        attributes=attributes,
        took_ns=span.end_time_unix_nano - span.start_time_unix_nano,
    )
