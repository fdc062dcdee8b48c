"""The files of the server's pages, and their security headers."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus
from pathlib import Path

from tornado.routing import URLSpec
from tornado.web import HTTPError, StaticFileHandler

from pairing_server.errors import RangeNotSatisfiable
from pairing_server.web.app_context import AppContext
from pairing_server.web.base_handler import BaseHandler

STATIC = Path(__file__).resolve().parents[1] / "static"
# Files that several pages share. Each page has them under its own path, from which its modules import them.
SHARED = STATIC / "shared"


class PageFileHandler(BaseHandler, StaticFileHandler):
    """Files of the server's pages."""

    def initialize(self, app: AppContext, path: str, route: str = "") -> None:  # type: ignore[override]
        BaseHandler.initialize(self, app, route)
        StaticFileHandler.initialize(self, path)

    def prepare(self) -> None:
        if "\0" in self.path_args[0]:
            raise HTTPError(404)

    def set_extra_headers(self, path: str) -> None:
        protect_page(self)
        self.set_header("Cache-Control", "no-cache")

    async def get(self, path: str, include_body: bool = True) -> None:
        await StaticFileHandler.get(self, path, include_body)
        if self.get_status() == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise RangeNotSatisfiable(size=self.get_content_size())

    def head(self, *args: str) -> Awaitable[None]:
        return StaticFileHandler.head(self, args[0])


def protect_page(handler: BaseHandler) -> None:
    """Let the page run this server's scripts only, and be in no frame. (The viewer sets styles inline.)"""
    handler.set_header(
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )


def files_of(app: AppContext, page: str) -> list[URLSpec]:
    """The URLs under `/{page}/`: the scripts and styles of the folder of that name, and the shared files. The HTML has
    handlers of its own, for its headers."""
    shared = "|".join(sorted(path.name.replace(".", r"\.") for path in SHARED.iterdir()))
    own = {"app": app, "route": f"/{page}/{{}}"}
    return [
        URLSpec(rf"/{page}/({shared})", PageFileHandler, {**own, "path": str(SHARED)}),
        URLSpec(rf"/{page}/([a-z-]+\.(?:js|css))", PageFileHandler, {**own, "path": str(STATIC / page)}),
    ]
