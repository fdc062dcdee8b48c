"""Every URL of the server in one table."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus

from tornado.web import Application, RedirectHandler, RequestHandler

from pairing_server.web import client_files, demo
from pairing_server.web.accounts import LoginHandler, RegisterHandler, WsTokenHandler, WsTokenMobileHandler
from pairing_server.web.app_context import AppContext
from pairing_server.web.audit import handlers, page
from pairing_server.web.base_handler import NotFoundHandler
from pairing_server.web.health import (
    DocsHandler,
    HealthHandler,
    MetricsHandler,
    OpenAPIHandler,
    ReadyHandler,
)
from pairing_server.web.lockouts import LockoutHandler, LockoutsHandler
from pairing_server.web.logins import LoginsHandler, LogoutHandler, OwnLoginHandler
from pairing_server.web.page_files import STATIC, PageFileHandler
from pairing_server.web.pairings import (
    GeneratePairCodeHandler,
    PairDeviceHandler,
    PairingHandler,
    PairingsHandler,
)
from pairing_server.websocket.handler import PairingSocket

log = logging.getLogger("pairing_server.access")

_UUID = r"([0-9a-fA-F-]{36})"

ROUTES: tuple[tuple[str, type[RequestHandler]], ...] = (
    (r"/api/auth/register", RegisterHandler),
    (r"/api/auth/login", LoginHandler),
    (r"/api/auth/logout", LogoutHandler),
    (r"/api/logins", LoginsHandler),
    (r"/api/logins/([^/]+)", OwnLoginHandler),
    (r"/api/auth/ws-token", WsTokenHandler),
    (r"/api/auth/ws-token-mobile", WsTokenMobileHandler),
    (r"/api/generate-pair-code", GeneratePairCodeHandler),
    (r"/api/pair-device", PairDeviceHandler),
    (r"/api/pairings", PairingsHandler),
    (rf"/api/pairings/{_UUID}", PairingHandler),
    (r"/api/audit", handlers.AuditHandler),
    (r"/api/audit/events/([0-9]{1,19})", handlers.AuditEventHandler),
    (r"/api/audit/timeline", handlers.AuditTimelineHandler),
    (r"/api/audit/summary", handlers.AuditSummaryHandler),
    (r"/api/audit/seals", handlers.AuditSealsHandler),
    (r"/api/audit/follow", handlers.AuditFollowHandler),
    (r"/api/audit/export", handlers.AuditExportHandler),
    (r"/api/lockouts", LockoutsHandler),
    (r"/api/lockouts/([^/]+)/([^/]+)", LockoutHandler),
    (r"/ws", PairingSocket),
    (r"/healthz", HealthHandler),
    (r"/readyz", ReadyHandler),
    (r"/metrics", MetricsHandler),
    (r"/openapi\.json", OpenAPIHandler),
    (r"/docs", DocsHandler),
)


def form_of(pattern: str) -> str:
    """The URL's form, without what differs from one to the other: it may be somebody's name."""
    return re.sub(r"\([^)]*\)", "{}", pattern).replace("\\", "")


def make_app(app: AppContext) -> Application:
    """The application that serves all of ROUTES, the JavaScript client, and the demonstration where it is wanted."""
    own = {"app": app}
    return Application(
        [
            *((pattern, handler, {**own, "route": form_of(pattern)}) for pattern, handler in ROUTES),
            (r"/docs/", RedirectHandler, {"url": "/docs"}),
            (r"/docs/(.+)", PageFileHandler, {"app": app, "path": str(STATIC / "docs")}),
            *client_files.routes(app),
            *page.routes(app),
            *(demo.routes(app) if app.demo else ()),
        ],
        default_handler_class=NotFoundHandler,
        default_handler_args=own,
        log_function=log_request,
    )


def log_request(handler: RequestHandler) -> None:
    """One line a request, without the query: it may hold a token."""
    status = handler.get_status()
    level = logging.INFO if status < 500 else logging.WARNING
    app = getattr(handler, "app", None)
    if isinstance(app, AppContext) and status != HTTPStatus.SWITCHING_PROTOCOLS:
        app.answered[f"{status // 100}xx"] += 1
        app.http_time.observe(handler.request.request_time())
    path = re.sub(r"[^\x21-\x7e]", "?", handler.request.path)[:200]
    log.log(
        level,
        "%s %s %d %.1fms",
        handler.request.method,
        path,
        status,
        1000 * handler.request.request_time(),
        extra={"request_id": str(getattr(handler, "request_id", ""))},
    )
