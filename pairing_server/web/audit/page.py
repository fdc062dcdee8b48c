"""The page for reviewers: `/audit`. Its script uses the endpoints under /api/audit with the token of the user."""

from __future__ import annotations

from tornado.routing import URLSpec

from pairing_server.web.app_context import AppContext
from pairing_server.web.base_handler import BaseHandler
from pairing_server.web.page_files import STATIC, files_of

AUDIT = STATIC / "audit"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class AuditPageHandler(BaseHandler):
    """GET /audit: only this server's scripts and styles, not in a frame, without access to devices."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Permissions-Policy", "microphone=(), camera=(), geolocation=()")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.finish((AUDIT / "index.html").read_bytes())


def routes(app: AppContext) -> list[URLSpec]:
    """The page and its files."""
    return [URLSpec(r"/audit", AuditPageHandler, {"app": app, "route": "/audit"}), *files_of(app, "audit")]
