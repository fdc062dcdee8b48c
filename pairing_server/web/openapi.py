"""The HTTP contract, made from the schemas by apispec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from pairing_server.errors import PairingServerError
from pairing_server.services.lockouts import POLICIES
from pairing_server.web import schemas
from pairing_server.web.audit import answers, questions
from pairing_server.web.base_handler import STATUS


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one URL: what it takes and what it may answer."""

    path: str
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

    @property
    def tag(self) -> str:
        """Under which heading the contract shows it."""
        for prefix, tag in (
            ("/api/auth/", "accounts"),
            ("/api/logins", "accounts"),
            ("/api/audit", "audit"),
            ("/api/lockouts", "administration"),
            ("/api/", "pairings"),
        ):
            if self.path.startswith(prefix):
                return tag
        return "operations"

    @property
    def operation_id(self) -> str:
        """A name for code generators, such as postAuthLogin."""
        words = [self.method, *re.sub(r"\{[^}]*\}", "one", self.path).replace("/api/", "/").split("/")]
        return "".join(
            word if place == 0 else word.title().replace("-", "")
            for place, word in enumerate(filter(None, words))
        )


_BODY = (400, 413, 415, 422)
_IN_PATH = {
    "id": {"type": "string", "format": "uuid"},
    "seq": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "kind": {"type": "string", "enum": sorted(POLICIES)},
    "key": {"type": "string", "minLength": 1, "maxLength": 512},
    "login": {"type": "string", "minLength": 1, "maxLength": 128},
}

OPERATIONS = (
    Operation(
        "/api/auth/register", "post", "Make an account, where registration is open.", schemas.RegisteredAnswer,
        status=201, body=schemas.RegisterBody, secured=False, errors=(*_BODY, 409, 429, 503),
    ),
    Operation(
        "/api/auth/login", "post", "A name and a password for an access token.", schemas.LoginAnswer,
        body=schemas.LoginBody, secured=False, errors=(*_BODY, 401, 429, 503),
    ),
    Operation(
        "/api/auth/logout", "post", "End this login, or all of the user's: tokens and connections.",
        schemas.LoggedOutAnswer, body=schemas.LogoutBody, body_required=False, errors=(*_BODY, 503),
    ),
    Operation("/api/logins", "get", "The caller's own logins.", schemas.OwnLoginsAnswer, errors=(503,)),
    Operation(
        "/api/logins/{login}", "delete", "End one of the caller's logins.", schemas.LoggedOutAnswer,
        errors=(404, 503),
    ),
    Operation(
        "/api/auth/ws-token", "post", "A token for opening the WebSocket as the desktop.", schemas.WsTokenAnswer,
        body=schemas.WsTokenBody, body_required=False, errors=(*_BODY, 503),
    ),
    Operation(
        "/api/auth/ws-token-mobile", "post", "A token for opening the WebSocket as the mobile.",
        schemas.WsTokenAnswer, body=schemas.WsTokenBody, body_required=False, errors=(*_BODY, 503),
    ),
    Operation(
        "/api/generate-pair-code", "post", "The code that the desktop shows.", schemas.CodeAnswer,
        body=schemas.GenerateBody, guests=True, errors=(*_BODY, 409, 429, 503),
    ),
    Operation(
        "/api/pair-device", "post", "The mobile redeems the code.", schemas.PairedAnswer,
        body=schemas.PairBody, guests=True, errors=(*_BODY, 404, 409, 429, 503),
    ),
    Operation("/api/pairings", "get", "The caller's own live pairings.", schemas.PairingsAnswer, errors=(503,)),
    Operation(
        "/api/pairings/{id}", "delete", "Unpair: the channel closes for both.", schemas.UnpairedAnswer,
        errors=(404, 503),
    ),
    Operation(
        "/api/audit", "get", "What has happened, for auditors and admins.", answers.AuditAnswer,
        query=questions.AuditQuery, errors=(422, 503),
    ),
    Operation(
        "/api/audit/events/{seq}", "get", "One event.", answers.AuditOneAnswer, errors=(404, 503),
    ),
    Operation(
        "/api/audit/timeline", "get", "How much happened when.", answers.AuditTimelineAnswer,
        query=questions.AuditFilter, errors=(422, 503),
    ),
    Operation(
        "/api/audit/summary", "get", "What a reviewer asks first.", answers.AuditSummaryAnswer,
        query=questions.AuditTimes, errors=(422, 503),
    ),
    Operation(
        "/api/audit/seals", "get", "How far the log is sealed.", answers.AuditSealsAnswer, errors=(503,),
    ),
    Operation(
        "/api/audit/follow", "get", "What has come since, as soon as there is something.",
        answers.AuditNewsAnswer, query=questions.AuditFollowQuery, errors=(422, 429, 503),
    ),
    Operation(
        "/api/audit/export", "get", "The events as a file, oldest first.", None,
        query=questions.AuditExportQuery, errors=(403, 422, 503), media="*/*",
    ),
    Operation("/api/lockouts", "get", "Who is locked out now, for admins.", schemas.LockoutsAnswer, errors=(503,)),
    Operation(
        "/api/lockouts/{kind}/{key}", "delete", "Let somebody try again at once.", schemas.DoneAnswer,
        errors=(404, 503),
    ),
    Operation("/healthz", "get", "The process is alive.", schemas.HealthAnswer, secured=False),
    Operation("/readyz", "get", "It can pair now.", schemas.HealthAnswer, secured=False, errors=(503,)),
    Operation("/metrics", "get", "Counts in Prometheus' text form.", None, secured=False, media="text/plain"),
)  # fmt: skip


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


@lru_cache(maxsize=1)
def contract(version: str) -> dict[str, Any]:
    """The OpenAPI 3.0 document."""
    spec = APISpec(
        title="Pairing server",
        version=version,
        openapi_version="3.0.3",
        info={
            "description": "Pairs a desktop and a phone by a six-digit code. The WebSocket has a document of its own."
        },
        plugins=[MarshmallowPlugin()],
    )
    spec.components.security_scheme(
        "access_token", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    )
    for operation in OPERATIONS:
        described: dict[str, Any] = {
            "operationId": operation.operation_id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "responses": _responses(operation),
        }
        parameters: list[Any] = []
        if operation.body:
            described["requestBody"] = {
                "required": operation.body_required,
                "content": {"application/json": {"schema": operation.body}},
            }
        if operation.query:
            parameters.append({"in": "query", "schema": operation.query})
        parameters += [
            {"in": "path", "name": name, "required": True, "schema": schema}
            for name, schema in _IN_PATH.items()
            if f"{{{name}}}" in operation.path
        ]
        described["parameters"] = parameters
        described["security"] = [{"access_token": []}] if operation.secured else []
        if operation.guests:
            described["security"].append({})  # where the setting allows it
        spec.path(operation.path, operations={operation.method: described})
    return spec.to_dict()
