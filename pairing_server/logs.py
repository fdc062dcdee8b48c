"""How the process logs: text for people, JSON for machines, and no secret in either.

What must not be logged is kept out where it arises; the filter here is the second net.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

_SECRETS = (
    (re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,2}"), "[token]"),
    (re.compile(r"((?:token|password|code)=[\"']?)[^&\s\"']+", re.IGNORECASE), r"\1[hidden]"),
    (re.compile(r"(postgres(?:ql)?(?:\+\w+)?://[^:/@\s]*:)\S+@"), r"\1[hidden]@"),
    (re.compile(r"\bpair-[0-9]{6}\b"), "pair-[hidden]"),
    # Nothing a client sends may steer the terminal of whoever reads the log.
    (re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]"), "?"),
)


def redact(text: str) -> str:
    """The text without anything shaped like a token, a password, a code or a database password."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class _Text(logging.Formatter):
    """One event, one line that begins with a time; a traceback's lines are indented below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        # Nothing a client sends may look like another event.
        return super().formatMessage(record).replace("\n", "\\n")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "  " + super().formatException(ei).replace("\n", "\n  ")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _JSON(JsonFormatter):
    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        # Before it becomes JSON, whose own quotes and escapes are not part of any secret.
        return {
            name: redact(value) if isinstance(value, str) else value
            for name, value in super().process_log_record(log_data).items()
        }


def set_level(level: str) -> None:
    """Log from that level on; also while running."""
    logging.getLogger().setLevel(level.upper())


def configure(form: str, level: str, stream: TextIO | None = None) -> None:
    """Log everything from `level` on to the stream (standard error), as "text" or "json"."""
    handler = logging.StreamHandler(stream or sys.stderr)
    if form == "json":
        handler.setFormatter(
            _JSON(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(_Text("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # Tornado writes a line for each message there is no handler for; the access log is our own.
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
