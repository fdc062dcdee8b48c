"""The audit log over HTTP, for auditors and admins."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from tornado.iostream import StreamClosedError

from pairing_server.services import (
    audit_export,
    audit_following,
    audit_reading,
    audit_sealed,
    audit_summary,
)
from pairing_server.web import audit_answers as answers
from pairing_server.web import audit_formats
from pairing_server.web import audit_questions as questions
from pairing_server.web.bearer import AuthenticatedHandler
from pairing_server.web.edge import utcnow

QUERY = questions.AuditQuery()
EVENTS = answers.AuditAnswer()
EVENT = answers.AuditOneAnswer()
FILTER = questions.AuditFilter()
TIMES = questions.AuditTimes()
TIMELINE = answers.AuditTimelineAnswer()
SUMMARY = answers.AuditSummaryAnswer()
SEALS = answers.AuditSealsAnswer()
FOLLOW = questions.AuditFollowQuery()
NEWS = answers.AuditNewsAnswer()
EXPORT = questions.AuditExportQuery()


class AuditHandler(AuthenticatedHandler):
    """GET /api/audit: what has happened, newest first, filtered, in pages."""

    async def get(self) -> None:
        query, now = self.read_query(QUERY), utcnow()
        before = questions.from_page_word(query["after"]) if "after" in query else None
        listed = await audit_reading.list_events(
            self.deps, self.caller, questions.question_of(query, now), query["limit"], before, now
        )
        following = None if listed.next is None else questions.to_page_word(listed.next)
        self.answer(EVENTS, {"events": listed.events, "next": following, "names": listed.names})


class AuditEventHandler(AuthenticatedHandler):
    """GET /api/audit/events/{seq}: one event."""

    async def get(self, seq: str) -> None:
        found = await audit_reading.one_event(
            self.deps, self.caller, min(int(seq), questions.MAX_SEQ), utcnow()
        )
        self.answer(EVENT, found)


class AuditTimelineHandler(AuthenticatedHandler):
    """GET /api/audit/timeline: how much happened when, by outcome."""

    async def get(self) -> None:
        query, now = self.read_query(FILTER), utcnow()
        found = await audit_summary.timeline(self.deps, self.caller, questions.question_of(query, now), now)
        self.answer(TIMELINE, found)


class AuditSummaryHandler(AuthenticatedHandler):
    """GET /api/audit/summary: what a reviewer asks first."""

    async def get(self) -> None:
        query, now = self.read_query(TIMES), utcnow()
        found = await audit_summary.summary(self.deps, self.caller, questions.question_of(query, now), now)
        self.answer(SUMMARY, found)


class AuditSealsHandler(AuthenticatedHandler):
    """GET /api/audit/seals: how far the log is sealed."""

    async def get(self) -> None:
        self.answer(SEALS, await audit_sealed.state(self.deps, self.caller, utcnow()))


class AuditFollowHandler(AuthenticatedHandler):
    """GET /api/audit/follow: what has come since, as soon as there is something."""

    async def get(self) -> None:
        query, now = self.read_query(FOLLOW), utcnow()
        after = questions.from_follow_word(query["after"]) if "after" in query else None
        waits = asyncio.ensure_future(
            audit_following.follow(
                self.deps,
                self.caller,
                questions.question_of(query, now),
                after,
                timedelta(seconds=query["wait"]),
                now,
            )
        )
        self._waits = waits
        try:
            news = await waits
        except asyncio.CancelledError:
            return  # nobody is there any more
        word = questions.to_follow_word(news.word, news.position)
        self.answer(NEWS, {"events": news.events, "next": word, "names": news.names})

    _waits: asyncio.Future[audit_following.News] | None = None

    def on_connection_close(self) -> None:
        if self._waits is not None:
            self._waits.cancel()


class AuditExportHandler(AuthenticatedHandler):
    """GET /api/audit/export: the events as a file, oldest first."""

    async def get(self) -> None:
        query, now = self.read_query(EXPORT), utcnow()
        form = query["format"]
        export = audit_export.Export(
            *(self.deps, self.caller, questions.question_of(query, now), form, now),
            head=audit_formats.head(form),
            line=partial(audit_formats.line, form),
        )
        await export.begin()
        self.set_header("Content-Type", audit_formats.MEDIA[form])
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
            # The answer has begun: it can only be cut off, so that nobody takes it for whole.
            self.detach().close()
            raise
        finally:
            await export.end(utcnow(), complete=complete)
