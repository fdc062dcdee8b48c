"""The JavaScript client under `/client/`: modules that any allowed page may import, as they are."""

from __future__ import annotations

from tornado.routing import URLSpec

from pairing_server.web.app_context import AppContext
from pairing_server.web.page_files import STATIC, PageFileHandler

CLIENT = STATIC / "client"


class ClientFileHandler(PageFileHandler):
    """GET /client/…: its modules import each other without a version, so a browser asks each time whether they changed."""

    def set_extra_headers(self, path: str) -> None:
        super().set_extra_headers(path)
        self.set_header("Vary", "Origin")
        # The code is no secret, but the same list of origins decides which pages may import it.
        if "Origin" in self.request.headers and self.app.origin_allowed(self.request):
            self.set_header("Access-Control-Allow-Origin", self.request.headers["Origin"])

    def get_content_type(self) -> str:
        # The system's table may take .ts for a video.
        if self.absolute_path and self.absolute_path.endswith(".ts"):
            return "text/plain; charset=utf-8"
        if self.absolute_path and self.absolute_path.endswith(".js"):
            return "text/javascript; charset=utf-8"
        return super().get_content_type()


def routes(app: AppContext) -> list[URLSpec]:
    given = {"app": app, "path": str(CLIENT), "route": "/client/{}"}
    return [URLSpec(r"/client/([a-z]+\.(?:js|d\.ts)|package\.json|README\.md)", ClientFileHandler, given)]
