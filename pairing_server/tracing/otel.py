"""Traces by OpenTelemetry: the one module that imports it. It needs the extra `otel`."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import ClassVar

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pairing_server.tracing import NOTHING, Kind, Span, Traces, TracesError, Value

log = logging.getLogger(__name__)

NAME = "pairing-server"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"
# Seconds, for what waits when the server stops.
STOP_TIMEOUT = 3.0

_KINDS: dict[Kind, trace.SpanKind] = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "internal": trace.SpanKind.INTERNAL,
}
_PROPAGATOR = TraceContextTextMapPropagator()


class OtelSpan(Span):
    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def context(self) -> context.Context:
        return trace.set_span_in_context(self._span, context.Context())

    # OpenTelemetry warns of what is said of a span that is over; here that is no fault.

    def set_attribute(self, name: str, value: Value) -> None:
        if self._span.is_recording():
            self._span.set_attribute(name, value)

    def failed(self, kind: str) -> None:
        if self._span.is_recording():
            self._span.set_attribute("error.type", kind)
            self._span.set_status(trace.StatusCode.ERROR)

    def enter(self) -> None:
        context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        context.attach(context.Context())

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()

    @contextmanager
    def during(self) -> Iterator[Span]:
        token = context.attach(trace.set_span_in_context(self._span))
        try:
            yield self
        except Exception as error:
            self.failed(type(error).__name__)
            raise
        finally:
            context.detach(token)
            self.end()


class OtelTraces(Traces):
    """One for each process; made before the node, stopped after it."""

    on: ClassVar[bool] = True

    def __init__(self, version: str) -> None:
        """Raises TracesError for an environment that asks for what there is not."""
        wanted = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), SPOKEN)
        if wanted != SPOKEN:
            raise TracesError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {wanted[:40]!r}; this server speaks {SPOKEN} only."
            )
        own = Resource({"service.name": NAME, "service.version": version})
        try:
            self._provider = TracerProvider(
                resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
            )
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise TracesError(f"The OTEL_* of the environment are not right: {error}") from None
        self._tracer = self._provider.get_tracer(NAME, version)
        self._handlers = list(logging.getLogger().handlers)
        for handler in self._handlers:
            handler.addFilter(_with_ids)

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: Span | None = None,
        traceparent: str | None = None,
    ) -> OtelSpan:
        above = context.Context()
        if isinstance(parent, OtelSpan):
            above = parent.context
        elif traceparent is not None:
            # Without its tracestate, which may say anything.
            above = _PROPAGATOR.extract({"traceparent": traceparent}, above)
        return self._begin(name, kind, above)

    def span(self, name: str, *, parent: Span | None = None) -> AbstractContextManager[Span]:
        return self.begin(name, parent=parent).during()

    def inner(self, name: str, kind: Kind = "internal") -> AbstractContextManager[Span]:
        here = trace.get_current_span()
        if not here.get_span_context().is_valid:
            return nullcontext(NOTHING)
        return self._begin(name, kind, None).during()

    def _begin(self, name: str, kind: Kind, above: context.Context | None) -> OtelSpan:
        return OtelSpan(self._tracer.start_span(name, context=above, kind=_KINDS[kind]))

    async def stop(self) -> None:
        """A receiver that does not answer costs the last spans, not the end of the server."""
        for handler in self._handlers:
            handler.removeFilter(_with_ids)
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop may be gone
                loop.call_soon_threadsafe(done.set)

        # No thread of the loop's own: it waits for those when it closes.
        threading.Thread(target=shut_down, name="traces-stop", daemon=True).start()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await done.wait()
        except TimeoutError:
            log.warning("last traces not sent")


def _with_ids(record: logging.LogRecord) -> bool:
    """What is logged within a span says so."""
    here = trace.get_current_span().get_span_context()
    if here.is_valid:
        record.trace_id, record.span_id = f"{here.trace_id:032x}", f"{here.span_id:016x}"
    return True
