"""The audit log over HTTP, for auditors and admins."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from tornado.iostream import StreamClosedError

from pairing_server.audit import export, query, summary, tail
from pairing_server.audit.seals import progress
from pairing_server.clock import utcnow
from pairing_server.web.audit import answers, formats, questions
from pairing_server.web.authentication import AuthenticatedHandler

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
        asked, now = self.read_query(QUERY), utcnow()
        before = questions.from_page_word(asked["after"]) if "after" in asked else None
        listed = await query.list_events(
            self.deps, self.context.at(now), questions.question_of(asked, now), asked["limit"], before
        )
        following = None if listed.next is None else questions.to_page_word(listed.next)
        self.answer(EVENTS, {"events": listed.events, "next": following, "names": listed.names})


class AuditEventHandler(AuthenticatedHandler):
    """GET /api/audit/events/{seq}: one event."""

    async def get(self, seq: str) -> None:
        found = await query.one_event(self.deps, self.context.at(utcnow()), min(int(seq), questions.MAX_SEQ))
        self.answer(EVENT, found)


class AuditTimelineHandler(AuthenticatedHandler):
    """GET /api/audit/timeline: how much happened when, by outcome."""

    async def get(self) -> None:
        asked, now = self.read_query(FILTER), utcnow()
        found = await summary.timeline(self.deps, self.context.at(now), questions.question_of(asked, now))
        self.answer(TIMELINE, found)


class AuditSummaryHandler(AuthenticatedHandler):
    """GET /api/audit/summary: what a reviewer asks first."""

    async def get(self) -> None:
        asked, now = self.read_query(TIMES), utcnow()
        found = await summary.summary(self.deps, self.context.at(now), questions.question_of(asked, now))
        self.answer(SUMMARY, found)


class AuditSealsHandler(AuthenticatedHandler):
    """GET /api/audit/seals: how far the log is sealed."""

    async def get(self) -> None:
        self.answer(SEALS, await progress.state(self.deps, self.context.at(utcnow())))


class AuditFollowHandler(AuthenticatedHandler):
    """GET /api/audit/follow: what has come since, as soon as there is something."""

    async def get(self) -> None:
        asked, now = self.read_query(FOLLOW), utcnow()
        after = questions.from_follow_word(asked["after"]) if "after" in asked else None
        waits = asyncio.ensure_future(
            tail.follow(
                self.deps,
                self.context.at(now),
                questions.question_of(asked, now),
                after,
                timedelta(seconds=asked["wait"]),
            )
        )
        self._waits = waits
        try:
            news = await waits
        except asyncio.CancelledError:
            return  # nobody is there any more
        word = questions.to_follow_word(news.word, news.position)
        self.answer(NEWS, {"events": news.events, "next": word, "names": news.names})

    _waits: asyncio.Future[tail.News] | None = None

    def on_connection_close(self) -> None:
        if self._waits is not None:
            self._waits.cancel()


class AuditExportHandler(AuthenticatedHandler):
    """GET /api/audit/export: the events as a file, oldest first."""

    async def get(self) -> None:
        asked, now = self.read_query(EXPORT), utcnow()
        form = asked["format"]
        taken = export.Export(
            *(self.deps, self.context.at(now), questions.question_of(asked, now), form),
            head=formats.head(form),
            line=partial(formats.line, form),
        )
        await taken.begin()
        self.set_header("Content-Type", formats.MEDIA[form])
        self.set_header("Content-Disposition", f'attachment; filename="audit-{now:%Y%m%dT%H%M%SZ}.{form}"')
        complete = False
        try:
            async for chunk in taken.chunks():
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
            await taken.end(utcnow(), complete=complete)
