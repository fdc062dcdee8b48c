"""Traces: spans of what the server does, for those who switch them on (PAIRING_TRACES). Off, a span is nothing.

OpenTelemetry is imported by tracing/otel.py alone, and that only where it is on. The attributes of a span are
those that are set: no token, code, password, payload, query, name or address; of an error its kind, not its text.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Literal

Value = str | int | bool
Kind = Literal["server", "client", "internal"]


class TracesError(Exception):
    """Traces cannot be switched on; the text is for the operator."""


class Span:
    """A stretch of work. This one is nothing: what is said of it goes nowhere, as it does once any span is over."""

    __slots__ = ()

    def set_attribute(self, name: str, value: Value) -> None:
        """An attribute."""

    def failed(self, kind: str) -> None:
        """It has not worked: `kind` is a code of ours or a class of exceptions."""

    def enter(self) -> None:
        """What the task does from now on is done within it."""

    def leave(self) -> None:
        """What the task does from now on is done within nothing."""

    def end(self) -> None:
        """It is over."""


NOTHING = Span()
_NOWHERE = nullcontext(NOTHING)


class Traces:
    """Makes spans; these make none."""

    on: ClassVar[bool] = False

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: Span | None = None,
        traceparent: str | None = None,
    ) -> Span:
        """A span below `parent`, else below what `traceparent` (of W3C) names, else of its own; end it."""
        return NOTHING

    def span(self, name: str, *, parent: Span | None = None) -> AbstractContextManager[Span]:
        """As `begin`; what is done meanwhile is done within it. It ends with that, failed if an exception comes out."""
        return _NOWHERE

    def inner(self, name: str, kind: Kind = "internal") -> AbstractContextManager[Span]:
        """As `span`, but within what is under way; nothing if nothing is."""
        return _NOWHERE

    async def stop(self) -> None:
        """Send what waits, for some seconds at most."""


OFF = Traces()
