"""The audit log over HTTP, for auditors and admins."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tornado.iostream import StreamClosedError

from pairing_server.audit import formats
from pairing_server.audit.export import Export
from pairing_server.audit.query import AuditReader, Question
from pairing_server.audit.tail import TailBatch
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext
from pairing_server.web.audit import answers, questions
from pairing_server.web.authentication import AuthenticatedHandler
from pairing_server.web.schemas import Schema

QUERY = questions.AuditQuery()
EVENTS = answers.AuditAnswer()
EVENT = answers.AuditOneAnswer()
FILTER = questions.AuditFilter()
TIMES = questions.AuditTimes()
TIMELINE = answers.AuditTimelineAnswer()
SUMMARY = answers.AuditSummaryAnswer()
SEALS = answers.AuditSealsAnswer()
FOLLOW = questions.AuditFollowQuery()
TAIL = answers.AuditTailAnswer()
EXPORT = questions.AuditExportQuery()


class _AuditHandler(AuthenticatedHandler):
    @property
    def reader(self) -> AuditReader:
        return self.app.services.audit.reader

    def question(self, schema: Schema) -> tuple[RequestContext, Question, dict[str, Any]]:
        """Who asks, and what, by the parameters of the URL."""
        given, context = self.read_query(schema), self.context.at(utcnow())
        return context, questions.question_of(given, context.now), given


class AuditHandler(_AuditHandler):
    """GET /api/audit: what has happened, newest first, filtered, in pages."""

    async def get(self) -> None:
        context, question, given = self.question(QUERY)
        before = questions.from_page_cursor(given["after"]) if "after" in given else None
        page = await self.reader.page(context, question, given["limit"], before)
        following = None if page.next is None else questions.to_page_cursor(page.next)
        self.answer(EVENTS, {"events": page.events, "next": following, "names": page.names})


class AuditEventHandler(_AuditHandler):
    """GET /api/audit/events/{seq}: one event."""

    async def get(self, seq: str) -> None:
        number = min(int(seq), questions.MAX_SEQ)
        self.answer(EVENT, await self.reader.event(self.context.at(utcnow()), number))


class AuditTimelineHandler(_AuditHandler):
    """GET /api/audit/timeline: how much happened when, by outcome."""

    async def get(self) -> None:
        context, question, _ = self.question(FILTER)
        self.answer(TIMELINE, await self.reader.timeline(context, question))


class AuditSummaryHandler(_AuditHandler):
    """GET /api/audit/summary: what a reviewer asks first."""

    async def get(self) -> None:
        context, question, _ = self.question(TIMES)
        self.answer(SUMMARY, await self.reader.summary(context, question))


class AuditSealsHandler(_AuditHandler):
    """GET /api/audit/seals: how far the log is sealed."""

    async def get(self) -> None:
        self.answer(SEALS, await self.reader.seals(self.context.at(utcnow())))


class AuditFollowHandler(_AuditHandler):
    """GET /api/audit/follow: what has come since, as soon as there is something."""

    _waiting: asyncio.Future[TailBatch] | None = None

    async def get(self) -> None:
        context, question, given = self.question(FOLLOW)
        after = questions.from_follow_cursor(given["after"]) if "after" in given else None
        wait = timedelta(seconds=given["wait"])
        self._waiting = asyncio.ensure_future(
            self.app.services.audit.tail.follow(context, question, after, wait)
        )
        try:
            batch = await self._waiting
        except asyncio.CancelledError:
            return  # the client has closed the connection
        following = questions.to_follow_cursor(batch.token, batch.position)
        self.answer(TAIL, {"events": batch.events, "next": following, "names": batch.names})

    def on_connection_close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()


class AuditExportHandler(_AuditHandler):
    """GET /api/audit/export: the events as a file, oldest first."""

    async def get(self) -> None:
        context, question, given = self.question(EXPORT)
        form, now = given["format"], context.now
        export = Export(self.reader, context, question, form)
        await export.begin()
        self.set_header("Content-Type", formats.MEDIA[form])
        self.set_header("Content-Disposition", f'attachment; filename="audit-{now:%Y%m%dT%H%M%SZ}.{form}"')
        complete = False
        try:
            async for chunk in export.chunks():
                self.write(chunk)
                await self.flush()
            complete = True
        except StreamClosedError:
            return
        except Exception:
            # The answer has begun. It is cut off, so that the client does not take it for complete.
            self.detach().close()
            raise
        finally:
            await export.end(utcnow(), complete=complete)
