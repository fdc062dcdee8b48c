"""The HTTP contract: what each operation takes and answers, and the OpenAPI document that apispec makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema
from tornado.web import RequestHandler

from pairing_server.errors import PairingServerError
from pairing_server.services.lockouts import KINDS
from pairing_server.web import schemas
from pairing_server.web.error_form import STATUS


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one URL: what it takes and what it may answer."""

    method: str
    summary: str
    answer: type[Schema] | None
    status: int = 200
    body: type[Schema] | None = None
    query: type[Schema] | None = None
    secured: bool = True
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    guests: bool = False
    body_required: bool = True


class Variable(NamedTuple):
    """A variable of a path: which texts the route takes, and what the contract says of it."""

    pattern: str
    schema: Mapping[str, Any]


VARIABLES = {
    "id": Variable("[0-9a-fA-F-]{36}", {"type": "string", "format": "uuid"}),
    "seq": Variable("[0-9]{1,19}", {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}),
    "kind": Variable("[^/]+", {"type": "string", "enum": sorted(KINDS)}),
    "key": Variable("[^/]+", {"type": "string", "minLength": 1, "maxLength": 512}),
    "login": Variable("[^/]+", {"type": "string", "minLength": 1, "maxLength": 128}),
}


class Route(NamedTuple):
    """`path`: as in the contract, with variables such as {id}; without an operation it is not in the contract."""

    path: str
    handler: type[RequestHandler]
    operation: Operation | None = None

    @property
    def pattern(self) -> str:
        """The regular expression for Tornado."""
        literals = re.split(r"{(\w+)}", self.path)
        return "".join(
            f"({VARIABLES[part].pattern})" if place % 2 else re.escape(part)
            for place, part in enumerate(literals)
        )

    @property
    def form(self) -> str:
        """The path without the names of its variables, for traces."""
        return re.sub(r"{\w+}", "{}", self.path)


_TAGS = (
    ("/api/auth/", "accounts"),
    ("/api/logins", "accounts"),
    ("/api/audit", "audit"),
    ("/api/lockouts", "administration"),
    ("/api/", "pairings"),
    ("/", "operations"),
)


def _operation_id(path: str, method: str) -> str:
    """A name for code generators, such as postAuthLogin."""
    words = [method, *re.sub(r"\{[^}]*\}", "one", path).replace("/api/", "/").split("/")]
    return "".join(
        word if place == 0 else word.title().replace("-", "")
        for place, word in enumerate(filter(None, words))
    )


def _responses(operation: Operation) -> Mapping[str, Any]:
    content: dict[str, Any] = (
        {"schema": operation.answer} if operation.answer else {"schema": {"type": "string"}}
    )
    found: dict[str, Any] = {
        str(operation.status): {"description": "Done.", "content": {operation.media: content}}
    }
    errors = {500, *operation.errors, *((401,) if operation.secured else ())}
    if operation.answer is not None:
        errors.add(403)  # every JSON endpoint minds the Origin

    for status in sorted(errors):
        found[str(status)] = {
            "description": _meaning(status),
            "content": {"application/json": {"schema": schemas.ErrorAnswer}},
        }
    return found


def _meaning(status: int) -> str:
    codes = [code for code, known in STATUS.items() if known == status]
    texts: dict[str, str] = {}
    for error in _tree(PairingServerError):
        texts.setdefault(error.code, error.message)
    return " · ".join(f"{code}: {texts.get(code, '')}" for code in codes)


def _tree(error: type[PairingServerError]) -> list[type[PairingServerError]]:
    return [error, *(leaf for below in error.__subclasses__() for leaf in _tree(below))]


def document(operations: Iterable[tuple[str, Operation]], version: str, server: str) -> dict[str, Any]:
    """The OpenAPI 3.0 document of the operations, each with its path below `server`."""
    spec = APISpec(
        title="Pairing server",
        version=version,
        openapi_version="3.0.3",
        info={
            "description": "Pairs a desktop and a phone by a six-digit code. The WebSocket has a document of its own."
        },
        plugins=[MarshmallowPlugin()],
        servers=[{"url": server}],
    )
    spec.components.security_scheme(
        "access_token", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    )
    for path, operation in operations:
        spec.path(path, operations={operation.method: _described(path, operation)})
    return spec.to_dict()


def _described(path: str, operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(path, operation.method),
        "tags": [next(tag for prefix, tag in _TAGS if path.startswith(prefix))],
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    if operation.body:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": operation.body}},
        }
    parameters: list[Any] = [{"in": "query", "schema": operation.query}] if operation.query else []
    described["parameters"] = parameters + [
        {"in": "path", "name": name, "required": True, "schema": VARIABLES[name].schema}
        for name in re.findall(r"{(\w+)}", path)
    ]
    described["security"] = [{"access_token": []}] if operation.secured else []
    if operation.guests:
        described["security"].append({})  # where the setting allows it
    return described
