"""Every operation of HTTP in one table: its URL, its handler, and what the OpenAPI document says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler

from pairing_server.web import client_files, demo, schemas
from pairing_server.web.access_log import log_request
from pairing_server.web.accounts import (
    AccountHandler,
    LoginHandler,
    RegisterHandler,
    WsTokenHandler,
    WsTokenMobileHandler,
)
from pairing_server.web.app_context import AppContext
from pairing_server.web.audit import handlers, page
from pairing_server.web.base_handler import BaseHandler, JSONHandler, NotFoundHandler
from pairing_server.web.health import (
    DocsHandler,
    DocsSlashHandler,
    HealthHandler,
    MetricsHandler,
    ReadyHandler,
)
from pairing_server.web.lockouts import LockoutHandler, LockoutsHandler
from pairing_server.web.logins import LoginsHandler, LogoutHandler, OwnLoginHandler
from pairing_server.web.openapi import Operation, Route, document
from pairing_server.web.page_files import STATIC, PageFileHandler
from pairing_server.web.pairings import (
    GeneratePairCodeHandler,
    PairDeviceHandler,
    PairingHandler,
    PairingsHandler,
)

# What any body may be refused for.
_BODY = (400, 413, 415, 422)


class OpenAPIHandler(JSONHandler):
    """GET /openapi.json: the HTTP contract, made from ROUTES."""

    def get(self) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(contract(self.app.version, self.app.base_path)))


ROUTES = (
    Route("/api/auth/register", RegisterHandler, Operation(
        "post", "Make an account, where registration is open.", schemas.RegisteredAnswer,
        status=201, body=schemas.RegisterBody, secured=False, errors=(*_BODY, 409, 429, 503),
    )),
    Route("/api/auth/login", LoginHandler, Operation(
        "post", "A name and a password for an access token.", schemas.LoginAnswer,
        body=schemas.LoginBody, secured=False, errors=(*_BODY, 401, 429, 503),
    )),
    Route("/api/auth/logout", LogoutHandler, Operation(
        "post", "End this login, or all of the user's: tokens and connections.", schemas.LoggedOutAnswer,
        body=schemas.LogoutBody, body_required=False, errors=(*_BODY, 429, 503),
    )),
    Route("/api/account", AccountHandler, Operation(
        "delete", "Delete the caller's own account.", schemas.AccountDeletedAnswer, errors=(404, 503),
    )),
    Route("/api/logins", LoginsHandler, Operation(
        "get", "The caller's own logins.", schemas.OwnLoginsAnswer, errors=(503,),
    )),
    Route("/api/logins/{login}", OwnLoginHandler, Operation(
        "delete", "End one of the caller's logins.", schemas.LoggedOutAnswer, errors=(404, 429, 503),
    )),
    Route("/api/auth/ws-token", WsTokenHandler, Operation(
        "post", "A token for opening the WebSocket as the desktop.", schemas.WsTokenAnswer,
        body=schemas.WsTokenBody, body_required=False, errors=(*_BODY, 429, 503),
    )),
    Route("/api/auth/ws-token-mobile", WsTokenMobileHandler, Operation(
        "post", "A token for opening the WebSocket as the mobile.", schemas.WsTokenAnswer,
        body=schemas.WsTokenBody, body_required=False, errors=(*_BODY, 429, 503),
    )),
    Route("/api/generate-pair-code", GeneratePairCodeHandler, Operation(
        "post", "The code that the desktop shows.", schemas.CodeAnswer,
        body=schemas.GenerateBody, guests=True, errors=(*_BODY, 409, 429, 503),
    )),
    Route("/api/pair-device", PairDeviceHandler, Operation(
        "post", "The mobile redeems the code.", schemas.PairedAnswer,
        body=schemas.PairBody, guests=True, errors=(*_BODY, 404, 409, 429, 503),
    )),
    Route("/api/pairings", PairingsHandler, Operation(
        "get", "The caller's own live pairings.", schemas.PairingsAnswer, errors=(503,),
    )),
    Route("/api/pairings/{id}", PairingHandler, Operation(
        "delete", "Unpair: the channel closes for both.", schemas.UnpairedAnswer,
        errors=(404, 503),
    )),
    *handlers.ROUTES,
    Route("/api/lockouts", LockoutsHandler, Operation(
        "get", "Who is locked out now, for admins.", schemas.LockoutsAnswer, errors=(503,),
    )),
    Route("/api/lockouts/{kind}/{key}", LockoutHandler, Operation(
        "delete", "Let somebody try again at once.", schemas.DoneAnswer, errors=(404, 503),
    )),
    Route("/healthz", HealthHandler, Operation(
        "get", "The process is alive.", schemas.HealthAnswer, secured=False,
    )),
    Route("/readyz", ReadyHandler, Operation(
        "get", "It can pair now.", schemas.HealthAnswer, secured=False, errors=(503,),
    )),
    Route("/metrics", MetricsHandler, Operation(
        "get", "Counts in Prometheus' text form.", None, secured=False, media="text/plain",
    )),
    Route("/openapi.json", OpenAPIHandler),
    Route("/docs", DocsHandler),
)  # fmt: skip


@lru_cache(maxsize=1)
def contract(version: str, base_path: str = "") -> dict[str, Any]:
    """The OpenAPI document of this server, which is under that path."""
    operations = ((route.path, route.operation) for route in ROUTES if route.operation)
    return document(operations, version, base_path or "/")


class SlashHandler(BaseHandler):
    """GET the path of PAIRING_PUBLIC_URL itself: the links of the page are relative to the folder of that name."""

    def get(self) -> None:
        self.redirect(f"{self.app.base_path}/", permanent=True)


class PairingApplication(Application):
    """Finds the handlers also where a proxy passes the path of PAIRING_PUBLIC_URL on. It may as well take it away."""

    def __init__(self, app: AppContext, routes: Sequence[Any]) -> None:
        super().__init__(
            list(routes),
            default_handler_class=NotFoundHandler,
            default_handler_args={"app": app},
            log_function=log_request,
        )
        self._app = app

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        found, base_path = super().find_handler(request, **kwargs), self._app.base_path
        if not base_path or getattr(found, "handler_class", None) is not NotFoundHandler:
            return found
        if request.path == base_path:
            return self.get_handler_delegate(request, SlashHandler, {"app": self._app})
        if not request.path.startswith(f"{base_path}/"):
            return found
        request.path = request.path.removeprefix(base_path)
        return super().find_handler(request, **kwargs)


def make_app(app: AppContext, sockets: Mapping[str, type[RequestHandler]]) -> Application:
    """The application: ROUTES, the `sockets` by their paths, the JavaScript client, and the demonstration where it is wanted."""
    routes = [*ROUTES, *(Route(path, handler) for path, handler in sockets.items())]
    own = {"app": app}
    return PairingApplication(
        app,
        [
            *((route.pattern, route.handler, {**own, "route": route.form}) for route in routes),
            (r"/docs/", DocsSlashHandler, {**own, "route": "/docs/"}),
            (r"/docs/(.+)", PageFileHandler, {**own, "path": str(STATIC / "docs"), "route": "/docs/{}"}),
            *client_files.routes(app),
            *page.routes(app),
            *(demo.routes(app) if app.demo else ()),
        ],
    )
