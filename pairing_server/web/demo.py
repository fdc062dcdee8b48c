"""The demonstration: `/` with a desktop and a phone beside it, `/phone` for a real one, and what these pages ask for.

It is served only with PAIRING_DEMO. The pages pair by the same endpoints as any client; those here only describe this
server to them and draw the QR code.
"""

from __future__ import annotations

import io
import json
import re

import segno
from marshmallow import fields, validate
from tornado.routing import URLSpec

from pairing_server.web.app_context import AppContext
from pairing_server.web.authentication import AuthenticatedHandler
from pairing_server.web.base_handler import BaseHandler, JSONHandler
from pairing_server.web.page_files import STATIC, files_of
from pairing_server.web.pairings import pairing_uri
from pairing_server.web.schemas import Schema

DEMO = STATIC / "demo"
# What may stand in a Host header and, unquoted, in a policy.
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


class QrBody(Schema):
    """`login`: a throw-away account's `name:password`, for the page that the QR code opens."""

    code = fields.String(required=True, validate=validate.Regexp(r"\A[0-9]{6}\Z"))
    login = fields.String(validate=validate.Regexp(r"\A[A-Za-z0-9_-]{3,64}:[A-Za-z0-9_-]{12,64}\Z"))


def policy(host: str) -> str:
    """The Content-Security-Policy of a page that was asked for at `host`.

    Browsers older than 2022 do not take 'self' for a WebSocket of the same host, so that is named as well.
    """
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src blob:;"
        f" connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class PageHandler(BaseHandler):
    """A page that loads this server's scripts and styles only, is in no frame, and may use the microphone."""

    page: str

    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", policy(self.request.headers.get("Host", "")))
        self.set_header("Permissions-Policy", "microphone=(self), camera=(), geolocation=()")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.finish((DEMO / self.page).read_bytes())


class HomeHandler(PageHandler):
    """GET /: a desktop, and a phone beside it."""

    page = "index.html"


class PhoneHandler(PageHandler):
    """GET /phone: what a QR code opens on a real phone."""

    page = "phone.html"


class SiteHandler(JSONHandler):
    """GET /demo/site.json: what the pages need to know about this server before a login."""

    def get(self) -> None:
        rules = self.app.rules
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(
            json.dumps(
                {
                    "registration": "open" if rules.registration_open else "closed",
                    "redeem_policy": "same_user" if rules.same_user else "any_user",
                    "public_url": rules.public_url,
                }
            )
        )


class QrHandler(AuthenticatedHandler):
    """POST /demo/qr: a code's URI as a QR code, in SVG.

    By POST, since a code or a login in a URL would end up in logs.
    """

    async def post(self) -> None:
        body = self.read(QrBody)
        await self.app.services.logins.require(self.context)
        uri = pairing_uri(self.app.rules, body["code"])
        if "login" in body:
            uri += f"&login={body['login']}"
        drawn = io.BytesIO()
        segno.make_qr(uri, error="m").save(drawn, kind="svg", border=4, omitsize=True, light="#fff")
        self.set_header("Content-Type", "image/svg+xml")
        self.finish(drawn.getvalue())


def routes(app: AppContext) -> list[URLSpec]:
    """Every URL of the demonstration."""
    pages = {
        "/": HomeHandler,
        "/phone": PhoneHandler,
        "/demo/site.json": SiteHandler,
        "/demo/qr": QrHandler,
    }
    return [
        *(URLSpec(re.escape(path), handler, {"app": app, "route": path}) for path, handler in pages.items()),
        *files_of(app, "demo"),
    ]
