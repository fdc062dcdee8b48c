"""How the process logs: text for people, JSON for machines, no secret in either.

A log line is an event with fields: `log.info("configuration reloaded", extra={"changed": names})` becomes
`configuration reloaded changed=…` as text, and members of the object as JSON. A library's line has its text in place
of an event, and the field `logger`. Code that has a secret does not log it; the filter here is the second line of defence.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from pairing_server.text import plain

log = logging.getLogger(__name__)

_OURS = "pairing_server"
# What a log record has besides the event's fields.
_RECORD = frozenset(RESERVED_ATTRS) | {"taskName"}
_SECRETS = (
    (re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,2}"), "[token]"),
    (re.compile(r"((?:token|password|code)=[\"']?)[^&\s\"']+", re.IGNORECASE), r"\1[hidden]"),
    (re.compile(r"(postgres(?:ql)?(?:\+\w+)?://[^:/@\s]*:)\S+@"), r"\1[hidden]@"),
    (re.compile(r"\bpair-[0-9]{6}\b"), "pair-[hidden]"),
)


def redact(text: str) -> str:
    """The text without anything shaped like a token, a password, a code or a database password, made plain."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return plain(text, keep="\n")


class _Timed(logging.Formatter):
    """A time is written as RFC 3339 has it: in UTC, with milliseconds."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class _Text(_Timed):
    """An event is one line that begins with a time. The lines of a traceback are indented below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        named = {name: value for name, value in vars(record).items() if name not in _RECORD}
        if record.name.partition(".")[0] != _OURS:
            named["logger"] = record.name
        fields = [f" {name}={_shown(value)}" for name, value in named.items()]
        # Text from a client must not look like another event.
        return (super().formatMessage(record) + "".join(fields)).replace("\n", "\\n")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "  " + super().formatException(ei).replace("\n", "\n  ")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _shown(value: object) -> str:
    """A field's value, in quotes if its end would not be clear without."""
    text = str(value)
    return text if re.fullmatch(r'[^\s"]+', text) else json.dumps(text, ensure_ascii=False)


class _JSON(_Timed, JsonFormatter):
    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        # Before encoding: the quotes and escapes of JSON are not part of a secret.
        return {
            name: redact(value) if isinstance(value, str) else value
            for name, value in super().process_log_record(log_data).items()
        }


def set_level(level: str) -> None:
    """Log from that level on. It may be called while the server runs."""
    logging.getLogger().setLevel(level.upper())


def configure(form: str, level: str, stream: TextIO | None = None) -> None:
    """Log everything from `level` on to the stream (standard error), as "text" or "json"."""
    handler = logging.StreamHandler(stream or sys.stderr)
    if form == "json":
        handler.setFormatter(
            _JSON(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(_Text("%(asctime)s %(levelname)-7s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # Its lines have the query, which can hold a token; handlers write an access log of their own.
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def before_configuration(environ: Mapping[str, str]) -> None:
    """Log in the form that the environment names, until the configuration is known; then call `configure`."""
    form = environ.get("PAIRING_LOG_FORMAT", "").strip().lower()
    configure("text" if form == "text" or (form != "json" and sys.stderr.isatty()) else "json", "info")


def log_everything() -> None:
    """Warnings of Python and exceptions that no code catches are log lines as well. For a process that serves."""
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda found: _uncaught(found.exc_type, found.exc_value, found.exc_traceback)
    sys.unraisablehook = lambda found: _uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    log.critical("uncaught exception", exc_info=(kind, error or kind(), traceback))
