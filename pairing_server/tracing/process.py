"""The traces of this process, where PAIRING_TRACES is on."""

from __future__ import annotations

from pairing_server.tracing import Traces, TracesError

MISSING = (
    "PAIRING_TRACES is on, but OpenTelemetry is not installed. Install it: pip install 'pairing-server[otel]'"
    " (scripts/install-systemd --traces), or set PAIRING_TRACES=false."
)


def traces_of_process(version: str) -> Traces:
    """Traces by OTLP, as the OTEL_* of the environment say. Raises TracesError."""
    try:
        from pairing_server.tracing.otel import OtelTraces
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise TracesError(MISSING) from None
    return OtelTraces(version)
