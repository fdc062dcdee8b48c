"""docs/protocol.md and the code name the same things, both ways."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pairing_server
from pairing_server import config
from pairing_server.errors import PairingServerError, ValidationFailed
from pairing_server.relay import messages, requests
from pairing_server.relay.close_codes import CloseCode
from pairing_server.web import error_form
from pairing_server.web.openapi import Operation
from pairing_server.web.routes import ROUTES, contract
from pairing_server.websocket.commands import COMMANDS
from tests import protocol, protocol_tables
from tests.protocol import EXAMPLES, code, section, table

PACKAGE = Path(pairing_server.__file__).parent


def below(base_class: type[Any]) -> Iterator[type[Any]]:
    for sub in base_class.__subclasses__():
        yield sub
        yield from below(sub)


def tag(struct: type[msgspec.Struct]) -> str:
    return str(struct.__struct_config__.tag)


FROM_CLIENT = {tag(struct): struct for struct in COMMANDS.by_struct}
FROM_SERVER = {tag(s): s for s in below(messages.ServerMessage) if not s.__subclasses__()}
ERRORS = {error.code: error for error in below(PairingServerError)}

# Examples.


def test_every_example_has_a_name_of_its_own() -> None:
    assert len(protocol.NAMES) == protocol.MARKS, "a mark without a fenced block right under it"
    assert len(set(protocol.NAMES)) == len(protocol.NAMES)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in protocol.NAMES)


@pytest.mark.parametrize("name", [e.name for e in EXAMPLES.values() if e.name.startswith("server-")])
def test_an_example_of_the_server_is_a_message_that_it_can_send(name: str) -> None:
    given = EXAMPLES[name].value
    struct = FROM_SERVER[given["type"]]
    assert set(given) - {"type"} <= set(struct.__struct_encode_fields__)


@pytest.mark.parametrize(
    "name",
    [
        e.name
        for e in EXAMPLES.values()
        if e.language == "json" and not e.name.startswith(("server-", "http-"))
    ],
)
def test_an_example_of_a_client_is_a_message_that_the_server_takes(name: str) -> None:
    text = EXAMPLES[name].text
    assert name.replace("-", "_").startswith(json.loads(text)["type"])
    if "desktop|mobile" in text:
        with pytest.raises(ValidationFailed):
            COMMANDS.decode(text)
        text = text.replace("desktop|mobile", "mobile")
    decoded = COMMANDS.decode(text)
    limits, command = config.Configuration().connection_limits, COMMANDS.by_struct[type(decoded)]
    command.check_size(text, limits)
    if command.check_content is not None:
        command.check_content(decoded, limits)
    if not isinstance(decoded, requests.Pong):  # whatever is in one is ignored
        assert set(json.loads(text)) - {"type"} <= set(type(decoded).__struct_fields__)


# Messages.


def test_the_messages_from_a_client_are_those_of_the_document() -> None:
    assert sorted(map(code, protocol.headings("Messages from a client"))) == sorted(FROM_CLIENT)


def test_the_messages_from_the_server_are_those_of_the_document() -> None:
    assert sorted(map(code, protocol.headings("Messages from the server"))) == sorted(FROM_SERVER)


@pytest.mark.parametrize("type_", FROM_CLIENT)
def test_every_field_from_a_client_is_described(type_: str) -> None:
    text = section(f"`{type_}`", 3).partition("## Messages from the server")[0]
    shown = set(re.findall(r"`([a-z_]+)`", text))
    for example in EXAMPLES.values():
        if example.name.replace("-", "_").startswith(type_):
            shown |= set(example.value)
    named_by_three = {"channel", "channelId", "channel_id"}
    fields = set(FROM_CLIENT[type_].__struct_fields__) - named_by_three
    assert fields <= shown, f"docs/protocol.md does not describe each field of {type_}"


@pytest.mark.parametrize("type_", FROM_SERVER)
def test_every_field_from_the_server_is_in_an_example(type_: str) -> None:
    shown: set[str] = set()
    for example in EXAMPLES.values():
        if example.name.startswith("server-") and example.value["type"] == type_:
            shown |= set(example.value)
    expected = set(FROM_SERVER[type_].__struct_encode_fields__)
    assert shown - {"type"} == expected, f"fields in the server-… examples of {type_} in docs/protocol.md"


# Errors.


def test_the_error_codes_are_those_of_the_document() -> None:
    assert sorted(code(row["code"]) for row in table("errors")) == sorted(ERRORS)


def test_the_document_and_the_edge_agree_on_each_http_status() -> None:
    documented = {
        code(row["code"]): int(found[1])
        for row in table("errors")
        if (found := re.search(r"HTTP (\d{3})", row["when"]))
    }
    assert documented == error_form.STATUS


def test_the_document_says_which_errors_are_worth_another_try() -> None:
    documented = {code(row["code"]): row["retryable"] == "yes" for row in table("errors")}
    assert all(error.retryable == documented[error.code] for error in below(PairingServerError))


def test_every_error_of_the_table_says_where_it_occurs() -> None:
    assert all("HTTP" in row["when"] or "WS" in row["when"] for row in table("errors"))


# Close codes.


def test_the_close_codes_are_those_of_the_document() -> None:
    assert sorted(int(code(row["code"])) for row in table("close-codes")) == sorted(CloseCode)


def closing_numbers(source: str) -> list[int]:
    """Every number that is handed to something as a close code, found by its range."""
    return [
        found.value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        for found in ast.walk(call)
        if isinstance(found, ast.Constant)
        and type(found.value) is int
        and (1000 <= found.value <= 1015 or 4400 <= found.value <= 4499)
        and isinstance(call.func, ast.Attribute | ast.Name)
        and re.search("close|evict|turn_away|fail", ast.unparse(call.func))
    ]


def test_nothing_closes_with_a_number_that_is_not_in_the_table() -> None:
    assert closing_numbers("self.close(4400); self._fail(1002); wait(1002)") == [4400, 1002]
    for path in PACKAGE.rglob("*.py"):
        assert closing_numbers(path.read_text(encoding="utf-8")) == [], path


def test_each_close_code_is_used_but_those_that_only_a_proxy_gives() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    unused = {code for code in CloseCode if f"CloseCode.{code.name}" not in sources}
    assert unused == {CloseCode.GOING_AWAY, CloseCode.OVERLOADED}


# Endpoints.


def endpoints() -> set[tuple[str, str]]:
    """Method and path of each heading of the HTTP part."""
    found = set()
    for heading in protocol.headings("HTTP"):
        if matched := re.match(r"(GET|POST|DELETE) (/.*)", heading):
            found |= {(matched[1], path) for path in matched[2].split(", ")}
    return found


def test_the_endpoints_are_those_of_the_document() -> None:
    pages = {("GET", "/openapi.json"), ("GET", "/docs")}
    served = {(operation.method.upper(), path) for path, _, operation in ROUTES if operation}
    assert endpoints() == served | pages


def test_every_documented_endpoint_has_a_route_and_every_route_of_the_api_is_documented() -> None:
    ids = {
        "{id}": "0f6f0c86-6f6a-4d2e-b0a5-3c1f8b8f9a52",
        "{seq}": "1204",
        "{kind}": "redeem_user",
        "{key}": "ada",
        "{login}": "6m0bJm2kV1lq8e2gk3XJ4A",
    }
    paths = {re.sub(r"{\w+}", lambda found: ids[found[0]], path) for _, path in endpoints()}
    patterns = {route.pattern for route in ROUTES}
    reached = {pattern for pattern in patterns for path in paths if re.fullmatch(pattern, path)}
    assert all(any(re.fullmatch(pattern, path) for pattern in patterns) for path in paths)
    assert not [p for p in patterns - reached if "/api" in p]


@pytest.mark.parametrize(
    ("path", "operation"),
    [(path, operation) for path, _, operation in ROUTES if operation and path.startswith("/api")],
)
def test_the_contract_has_the_statuses_of_the_documented_errors(path: str, operation: Operation) -> None:
    text = section(f"{operation.method.upper()} {path}", 3)
    named = re.search(r"^.*?Errors: (.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    documented = {
        error_form.STATUS[word]
        for word in re.findall(r"`([A-Z_]+)`", named[1] if named else "")
        if word in ERRORS
    }
    described = set(contract("0")["paths"][path][operation.method]["responses"])
    assert {str(status) for status in documented} <= described


# Settings and limits.


@pytest.mark.parametrize("name", protocol_tables.TABLES)
def test_the_settings_and_limits_are_those_of_the_document(name: str) -> None:
    text = protocol.PATH.read_text(encoding="utf-8")
    if protocol_tables.rendered(name) not in text:
        pytest.fail("the table is not that of the code; write it: .venv/bin/python -m tests.protocol_tables")


def test_a_setting_that_changes_a_limit_exists() -> None:
    named = [word for row in table("limits") for word in re.findall(r"PAIRING_\w+", row["setting"])]
    assert named and set(named) <= set(config.NAMES)
