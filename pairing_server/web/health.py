"""For operators and developers: health, readiness, metrics, and the page that shows the contract."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pairing_server.db.errors import readiness_reason
from pairing_server.errors import Unavailable
from pairing_server.web import metrics, schemas
from pairing_server.web.base_handler import BaseHandler, JSONHandler
from pairing_server.web.page_files import STATIC, protect_page


class HealthHandler(JSONHandler):
    """GET /healthz: the process is alive."""

    traced = False
    probe = True

    def get(self) -> None:
        self.answer(schemas.HealthAnswer, {"status": "ok"})


class ReadyHandler(JSONHandler):
    """GET /readyz: it can pair now."""

    traced = False
    probe = True

    async def get(self) -> None:
        if self.app.draining:
            raise Unavailable(
                "The server stops. Use another one, or try again in a moment.", reasons=["draining"]
            )
        if self.app.starting:
            raise Unavailable(
                "The server waits for its database. Try again in a moment.", reasons=["starting"]
            )
        try:
            await self.app.database.ready()
        except Unavailable as error:
            raise Unavailable(error.text, reasons=[readiness_reason(error)]) from error
        self.answer(schemas.HealthAnswer, {"status": "ready"})


class MetricsHandler(BaseHandler):
    """GET /metrics: counts in Prometheus' text form."""

    probe = True

    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(metrics.exposition(self.app))


class DocsHandler(BaseHandler):
    """GET /docs: a page of the contract; nothing on it is loaded from elsewhere."""

    def get(self) -> None:
        protect_page(self)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((STATIC / "docs" / "index.html").read_bytes())


class DocsSlashHandler(BaseHandler):
    """GET /docs/: the same page."""

    def get(self) -> None:
        self.redirect("../docs", permanent=True)
