"""Handlers that speak JSON: read the body, answer, and turn any error into its wire form in one place."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar
from uuid import UUID, uuid4

import marshmallow
from marshmallow import EXCLUDE, Schema
from tornado.web import HTTPError, RequestHandler, stream_request_body

from pairing_server.clock import utcnow
from pairing_server.errors import (
    Forbidden,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PairingServerError,
    PayloadTooLarge,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from pairing_server.request_context import RequestContext
from pairing_server.security.addresses import limit_key
from pairing_server.tracing import NOTHING, Span
from pairing_server.web.app_context import AppContext
from pairing_server.web.error_form import default_headers, error_body, error_headers, status_of
from pairing_server.web.json_body import DRAINED_SIZE, parse_object

log = logging.getLogger(__name__)

# Tornado's own refusals as errors of the protocol; everything else that it raises is a fault.
_TRANSLATED: dict[int, type[PairingServerError]] = {
    400: InvalidRequest,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    503: Unavailable,
}
_METHODS = ("GET", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")


@stream_request_body
class BaseHandler(RequestHandler):
    """What JSON handlers, pages and sockets share: the application, an id for the request, the client's address.

    A body is dropped as it comes, also where no method reads one: Tornado would keep all of it until its end.
    """

    request_id: UUID
    context: RequestContext
    app: AppContext

    # The URL's form, as in "/api/pairings/{}"; empty where the URL has no handler.
    route: str = ""
    # Whether programs ask it every few seconds.
    probe: ClassVar[bool] = False
    # Whether a request is worth a span.
    traced: ClassVar[bool] = True
    span: Span = NOTHING

    def initialize(self, app: AppContext, route: str = "") -> None:
        self.app = app
        if route:
            self.route = route

    def data_received(self, chunk: bytes) -> None:
        """Drop it; a handler that reads bodies keeps what it may."""

    def trace(self) -> None:
        """Begin the request's span, if traces are on. The rest of the request runs in it."""
        if not (self.app.traces.on and self.traced):
            return
        method = self.request.method if self.request.method in _METHODS else "OTHER"
        self.span = self.app.traces.begin(
            f"{method} {self.route}".rstrip(), "server", traceparent=self.app.traceparent(self.request)
        )
        self.span.set_attribute("http.request.method", method)
        self.span.set_attribute("http.route", self.route)
        self.span.set_attribute("pairing.request_id", str(self.request_id))
        self.span.enter()

    def on_finish(self) -> None:
        self.end_span(self.get_status())

    def end_span(self, status: int) -> None:
        self.span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.span.failed(str(status))
        self.span.end()

    def set_default_headers(self) -> None:
        if not hasattr(self, "request_id"):
            self.request_id = uuid4()
        for name, value in default_headers(self.request_id).items():
            self.set_header(name, value)

    def anonymous(self) -> RequestContext:
        """The context of a request whose user is not known (yet): it has an address."""
        address = self.app.address(self.request)
        return RequestContext(
            utcnow(), address=address, address_key=limit_key(address), request_id=self.request_id
        )

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log faults with their traceback. Refusals, the protocol's and Tornado's, are answers and no faults."""
        if isinstance(value, Unavailable):
            level = logging.DEBUG if self.probe else logging.WARNING
            log.log(level, "request refused", extra={**self._what(), "reason": value.text})
        elif not isinstance(value, PairingServerError | HTTPError):
            log.error(
                "request failed", extra=self._what(), exc_info=(typ, value, tb) if typ and value else None
            )

    def _what(self) -> dict[str, str]:
        """The request, as fields of a log line."""
        return {
            "method": str(self.request.method),
            "route": self.route,
            "request_id": str(self.request_id),
        }

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the one form that all errors have on the wire."""
        value = (kwargs.get("exc_info") or (None, None, None))[1]
        error = value if isinstance(value, PairingServerError) else self._translated(status_code)
        self.app.refused[error.code] += 1
        if self._prepared_future is not None and not self._prepared_future.done():
            # Tornado closes a connection that is answered before its body has been read.
            self.set_header("Connection", "close")
        self.span.set_attribute("pairing.error", error.code)
        self.set_status(status_of(error))
        for name, header in error_headers(error).items():
            self.set_header(name, header)
        self.finish(error_body(error))

    def _translated(self, status: int) -> PairingServerError:
        """Tornado's own refusal as an error of the protocol."""
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.methods()))
        return _TRANSLATED.get(status, Internal)()

    @classmethod
    def methods(cls) -> list[str]:
        """The methods this handler answers."""
        own = [m for m in _METHODS if getattr(cls, m.lower()) is not getattr(RequestHandler, m.lower())]
        return [*own, "HEAD"] if "GET" in own else own

    def head(self, *args: str) -> Awaitable[None] | None:
        """As GET; Tornado leaves the body out."""
        if "GET" not in self.methods():
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        answer: Awaitable[None] | None = self.get(*args)
        return answer


@cache
def _made(schema: type[Schema]) -> Schema:
    """Making one takes longer than using it."""
    return schema()


class JSONHandler(BaseHandler):
    """An endpoint whose requests and answers are JSON."""

    # The origin of the page, once it is known to be allowed.
    _origin: str | None = None

    async def prepare(self) -> None:
        self.trace()
        # One object: of a body that comes byte by byte, a list would hold thousands.
        self._body = bytearray()
        self._received = 0
        self.context = self.anonymous()
        origin = self.request.headers.get("Origin")
        if origin is not None and not self.app.origin_allowed(self.request):
            raise self.app.refuse_origin(self.request)
        self._origin = origin
        self._set_cors_headers()
        if (declared := self._declared_size()) > DRAINED_SIZE:
            raise PayloadTooLarge(limit=self.app.http_limits.body_size, size=declared)
        if self.app.draining and self.request.method not in ("GET", "HEAD", "OPTIONS"):
            raise Unavailable("The server restarts. Try again in a moment.")

    def _declared_size(self) -> int:
        """The declared size of the body; 0 if none is."""
        try:
            return int(self.request.headers.get("Content-Length", "0"))
        except ValueError:
            return 0  # Tornado refuses it

    def _set_cors_headers(self) -> None:
        """Let the page of an allowed origin read the answer."""
        if "Origin" in self.request.headers:
            self.set_header("Vary", "Origin")
        if self._origin is not None:
            self.set_header("Access-Control-Allow-Origin", self._origin)
            self.set_header("Access-Control-Expose-Headers", "Retry-After, X-Request-ID")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tornado has cleared the headers by now."""
        self._set_cors_headers()
        super().write_error(status_code, **kwargs)

    def options(self, *_: str) -> None:
        """The preflight request that a browser sends before a cross-origin request."""
        self.set_header("Allow", ", ".join(self.methods()))
        if self.request.headers.get("Origin"):
            self.set_header("Access-Control-Allow-Methods", ", ".join(self.methods()))
            self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
            self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)
        self.finish()

    def data_received(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received <= self.app.http_limits.body_size:
            self._body += chunk

    def read(self, schema: type[Schema]) -> dict[str, Any]:
        """The checked body. An absent one is an empty object.

        Raises PayloadTooLarge, UnsupportedMediaType, InvalidRequest, ValidationFailed.
        """
        if self._received > self.app.http_limits.body_size:
            raise PayloadTooLarge(limit=self.app.http_limits.body_size, size=self._received)
        body = bytes(self._body)
        given = self.request.headers.get("Content-Type", "")
        if body and given.partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaType()
        return self._load(schema, parse_object(body) if body else {})

    def read_query(self, schema: type[Schema]) -> dict[str, Any]:
        """The checked query parameters; the last of several of one name. Raises ValidationFailed."""
        try:
            given = {
                name: values[-1].decode("utf-8") for name, values in self.request.query_arguments.items()
            }
        except UnicodeDecodeError:
            raise InvalidRequest("The query cannot be read. Send it in UTF-8.") from None
        return self._load(schema, given)

    @staticmethod
    def _load(schema: type[Schema], data: dict[str, Any]) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = _made(schema).load(data, unknown=EXCLUDE)
        except marshmallow.ValidationError as error:
            raise ValidationFailed(fields=error.messages) from None
        return loaded

    def answer(self, schema: type[Schema], value: object, status: int = 200) -> None:
        """Answer with the value as the schema serializes it."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(_made(schema).dump(value), ensure_ascii=False))


class NotFoundHandler(JSONHandler):
    """Any URL that has no route."""

    async def prepare(self) -> None:
        await super().prepare()
        raise NotFound("There is nothing at this URL. See /docs for those that exist.")
