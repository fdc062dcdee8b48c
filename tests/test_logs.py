"""What the log looks like, and what never stands in it."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

from pairing_server import logs
from pairing_server.clock import utcnow
from pairing_server.logs import redact
from pairing_server.security.keys import generate_key
from pairing_server.security.tokens import Tokens

TOKEN = Tokens([generate_key()]).issue_access("alice", utcnow()).token


def logged(form: str, text: str, *values: object, error: Exception | None = None, **fields: object) -> str:
    """What one warning with this text looks like."""
    stream = io.StringIO()
    logs.configure(form, "info", stream)
    logging.getLogger("pairing_server.test").warning(text, *values, exc_info=error, extra=fields)
    return stream.getvalue()


def failure(text: str) -> Exception:
    """An exception with a traceback."""
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"GET /ws?token={TOKEN}&x=1", "GET /ws?token=[hidden]&x=1"),
        ("GET /ws?token=opaque-secret&x=1", "GET /ws?token=[hidden]&x=1"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer [token]"),
        (f"Bearer%20{TOKEN}", "Bearer%20[token]"),
        (f"Sec-WebSocket-Protocol: Bearer.{TOKEN}", "Sec-WebSocket-Protocol: Bearer.[token]"),
        (f"GET /ws/{TOKEN}"[: len(TOKEN) // 2], "GET /ws/[token]"),  # as where a long path is cut
        ("password=hunter2 user=bob", "password=[hidden] user=bob"),
        ('code="123456" x', 'code="[hidden]" x'),
        ("Code='123456'", "Code='[hidden]'"),
        ("join pair-123456 twice", "join pair-[hidden] twice"),
        ("postgresql://bob:hunter2@db/name", "postgresql://bob:[hidden]@db/name"),
        ("postgresql+asyncpg://bob:a@b@db/name", "postgresql+asyncpg://bob:[hidden]@db/name"),
    ],
)
def test_whatever_looks_like_a_secret_is_hidden(text: str, left: str) -> None:
    assert redact(text) == left


def test_what_is_no_secret_is_left_alone() -> None:
    text = "pairing 7f3c9a2e closed: code 4409, pair-12345, postgresql://db/name, 12 tokens, eyJust"
    assert redact(text) == text


# RFC 3339, in UTC, with milliseconds.
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def test_text_is_one_line_with_time_and_level() -> None:
    assert re.fullmatch(TIME + r" WARNING hello bob\n", logged("text", "hello %s", "bob"))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_time_is_that_of_the_event_in_utc(form: str) -> None:
    stream = io.StringIO()
    logs.configure(form, "info", stream)
    record = logging.LogRecord("pairing_server.test", logging.INFO, "", 0, "hello", (), None)
    for record.created, shown in (
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1e9 + 0.9996, "2001-09-09T01:46:40.999Z"),
    ):
        logging.getLogger().handle(record)
        assert shown in stream.getvalue()


def test_the_line_of_a_library_names_its_logger() -> None:
    stream = io.StringIO()
    logs.configure("text", "info", stream)
    logging.getLogger("asyncio").error("Task was destroyed but it is pending!")
    assert stream.getvalue().endswith("ERROR   Task was destroyed but it is pending! logger=asyncio\n")


def test_json_is_one_object_a_line_with_time_level_and_logger() -> None:
    told = logged("json", "hello %s", "bob")
    assert told.count("\n") == 1
    row = json.loads(told)
    assert re.fullmatch(TIME, row.pop("time"))
    assert row == {"level": "WARNING", "logger": "pairing_server.test", "message": "hello bob"}


def test_an_event_has_its_fields_in_both_forms() -> None:
    fields = {"reason": "used", "seconds": 3, "cause": 'no "x"\n', "empty": "", "query": f"token={TOKEN}"}
    line = logged("text", "redeem refused", **fields)
    assert line.endswith(
        r'redeem refused reason=used seconds=3 cause="no \"x\"\n" empty="" query=token=[hidden]' "\n"
    )
    row = json.loads(logged("json", "redeem refused", **fields))
    assert {name: row[name] for name in fields} == {**fields, "query": "token=[hidden]"}


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_a_client_sends_looks_like_another_event(form: str) -> None:
    told = logged(form, "bad message: %s", "x\n12:00:00 INFO    all is well\r\n\x1b[2Jgone\x9b")
    assert told.count("\n") == 1
    assert not set(told[:-1]) & {chr(n) for n in (*range(32), *range(127, 160))}
    assert "all is well" in told


def test_the_lines_of_a_traceback_are_indented_below_their_event() -> None:
    told = logged("text", "failed", error=failure("first\n12:00:00 INFO    all is well"))
    first, *rest = told.rstrip("\n").split("\n")
    assert first.endswith("failed")
    assert "Traceback" in rest[0]
    assert all(line.startswith("  ") for line in rest)
    assert "all is well" in rest[-1]


def test_a_traceback_in_json_stays_within_its_line() -> None:
    told = logged("json", "failed", error=failure("first\nsecond"))
    assert told.count("\n") == 1
    assert "ValueError: first\nsecond" in json.loads(told)["exc_info"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_hidden_in_messages_and_tracebacks_of_either_form(form: str) -> None:
    told = logged(form, 'said code="123456" on pair-654321', error=failure(f"/ws?token={TOKEN}"))
    for secret in ("123456", "654321", TOKEN, TOKEN.split(".")[1]):
        assert secret not in told
    if form == "json":
        assert json.loads(told)["message"] == 'said code="[hidden]" on pair-[hidden]'


def test_below_the_level_nothing_is_logged() -> None:
    stream = io.StringIO()
    logs.configure("text", "error", stream)
    logging.getLogger("pairing_server.test").warning("hello")
    assert stream.getvalue() == ""


def test_the_access_log_of_the_web_framework_which_prints_addresses_with_tokens_is_off() -> None:
    stream = io.StringIO()
    logs.configure("text", "debug", stream)
    logging.getLogger("tornado.access").info("101 GET /ws?token=x")
    assert stream.getvalue() == ""
