"""The audit log over HTTP, for auditors and admins: each question's answer, handler and route.

The command line prints the same answers with --json.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from marshmallow import fields
from tornado.iostream import StreamClosedError

from pairing_server.audit import formats
from pairing_server.audit.export import Export
from pairing_server.audit.query import AuditReader, Question
from pairing_server.audit.seals import format_key
from pairing_server.audit.tail import TailBatch
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext
from pairing_server.web.audit import questions
from pairing_server.web.authentication import AuthenticatedHandler
from pairing_server.web.openapi import Operation, Route
from pairing_server.web.schemas import Instant, Schema


class AuditEventAnswer(Schema):
    seq = fields.Integer(required=True)
    recorded_at = Instant(required=True)
    occurred_at = Instant(required=True, attribute="event.occurred_at")
    event_id = fields.UUID(required=True, attribute="event.event_id")
    event = fields.String(required=True, attribute="event.event")
    severity = fields.Integer(required=True, attribute="event.severity")
    outcome = fields.String(required=True, attribute="event.outcome")
    reason = fields.String(required=True, allow_none=True, attribute="event.reason")
    actor = fields.String(required=True, allow_none=True, attribute="event.actor_subject")
    actor_kind = fields.String(required=True, attribute="event.actor_kind")
    auth_method = fields.String(required=True, allow_none=True, attribute="event.auth_method")
    address = fields.String(required=True, allow_none=True, attribute="event.address")
    request_id = fields.UUID(required=True, allow_none=True, attribute="event.request_id")
    connection_id = fields.UUID(required=True, allow_none=True, attribute="event.connection_id")
    pairing_id = fields.UUID(required=True, allow_none=True, attribute="event.pairing_id")
    node = fields.String(required=True, attribute="event.node")
    app_version = fields.String(required=True, attribute="event.app_version")
    count = fields.Integer(required=True, attribute="event.count")
    attrs = fields.Dict(required=True, attribute="event.attrs")


def _names() -> fields.Dict:
    described = {"description": "the names of the accounts in it, by their subject"}
    return fields.Dict(keys=fields.String(), values=fields.String(), required=True, metadata=described)


class AuditAnswer(Schema):
    events = fields.List(fields.Nested(AuditEventAnswer), required=True)
    next = fields.String(required=True, allow_none=True, metadata={"description": "null: the last page"})
    names = _names()


class AuditSealAnswer(Schema):
    number = fields.Integer(required=True)
    rows = fields.Integer(required=True)
    sealed_at = fields.String(required=True, metadata={"format": "date-time"})
    node = fields.String(required=True)
    digest = fields.Function(lambda seal: seal.digest.hex(), required=True, metadata={"type": "string"})
    previous = fields.Function(lambda seal: seal.previous.hex(), required=True, metadata={"type": "string"})
    public_key = fields.Function(
        lambda seal: format_key(seal.public_key), required=True, metadata={"type": "string"}
    )


class AuditOneAnswer(Schema):
    event = fields.Nested(AuditEventAnswer, required=True)
    seal = fields.Nested(
        AuditSealAnswer, required=True, allow_none=True, metadata={"description": "null: not sealed yet"}
    )
    names = _names()


class AuditUnsealedAnswer(Schema):
    rows = fields.Integer(required=True, metadata={"description": "newer than the last seal; 10000 at most"})
    oldest = Instant(required=True, allow_none=True)


class AuditSealsAnswer(Schema):
    seals = fields.List(fields.Nested(AuditSealAnswer), required=True)
    unsealed = fields.Nested(AuditUnsealedAnswer, required=True)
    public_key = fields.String(required=True)
    copied = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "the last one outside; null: none are copied"},
    )


class AuditBarAnswer(Schema):
    at = Instant(required=True)
    outcomes = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class AuditTimelineAnswer(Schema):
    since = Instant(required=True)
    until = Instant(required=True)
    step = fields.Function(
        lambda timeline: int(timeline.step.total_seconds()),
        required=True,
        metadata={"type": "integer", "description": "seconds from one bar to the next"},
    )
    bars = fields.List(fields.Nested(AuditBarAnswer), required=True)


class AuditCountedAnswer(Schema):
    value = fields.String(required=True)
    count = fields.Integer(required=True)
    last = Instant(required=True)


class AuditFailedAnswer(Schema):
    addresses = fields.List(fields.Nested(AuditCountedAnswer), required=True)
    users = fields.List(fields.Nested(AuditCountedAnswer), required=True)


class AuditAttemptAnswer(Schema):
    event = fields.String(required=True)
    reason = fields.String(required=True, allow_none=True)
    actor = fields.String(required=True, allow_none=True)
    address = fields.String(required=True, allow_none=True)
    count = fields.Integer(required=True)
    last = Instant(required=True)


class AuditNewAddressAnswer(Schema):
    actor = fields.String(required=True)
    address = fields.String(required=True)
    first = Instant(required=True)
    count = fields.Integer(required=True)


class AuditSummaryAnswer(Schema):
    timeline = fields.Nested(AuditTimelineAnswer, required=True)
    outcomes = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    logins = fields.Nested(AuditFailedAnswer, required=True)
    redemptions = fields.Nested(AuditFailedAnswer, required=True)
    lockouts = fields.List(fields.Nested(AuditEventAnswer), required=True)
    intruders = fields.List(fields.Nested(AuditAttemptAnswer), required=True)
    new_addresses = fields.List(fields.Nested(AuditNewAddressAnswer), required=True)
    names = _names()


class AuditTailAnswer(Schema):
    events = fields.List(fields.Nested(AuditEventAnswer), required=True)
    next = fields.String(required=True)
    names = _names()


class _AuditHandler(AuthenticatedHandler):
    @property
    def reader(self) -> AuditReader:
        return self.app.services.audit.reader

    def question(self, schema: type[Schema]) -> tuple[RequestContext, Question, dict[str, Any]]:
        """Who asks, and what, by the parameters of the URL."""
        given, context = self.read_query(schema), self.context.at(utcnow())
        return context, questions.question_of(given, context.now), given


class AuditHandler(_AuditHandler):
    """GET /api/audit: what has happened, newest first, filtered, in pages."""

    async def get(self) -> None:
        context, question, given = self.question(questions.AuditQuery)
        before = questions.from_page_cursor(given["after"]) if "after" in given else None
        page = await self.reader.page(context, question, given["limit"], before)
        following = None if page.next is None else questions.to_page_cursor(page.next)
        self.answer(AuditAnswer, {"events": page.events, "next": following, "names": page.names})


class AuditEventHandler(_AuditHandler):
    """GET /api/audit/events/{seq}: one event."""

    async def get(self, seq: str) -> None:
        number = min(int(seq), questions.MAX_SEQ)
        self.answer(AuditOneAnswer, await self.reader.event(self.context.at(utcnow()), number))


class AuditTimelineHandler(_AuditHandler):
    """GET /api/audit/timeline: how much happened when, by outcome."""

    async def get(self) -> None:
        context, question, _ = self.question(questions.AuditFilter)
        self.answer(AuditTimelineAnswer, await self.reader.timeline(context, question))


class AuditSummaryHandler(_AuditHandler):
    """GET /api/audit/summary: what a reviewer asks first."""

    async def get(self) -> None:
        context, question, _ = self.question(questions.AuditTimes)
        self.answer(AuditSummaryAnswer, await self.reader.summary(context, question))


class AuditSealsHandler(_AuditHandler):
    """GET /api/audit/seals: how far the log is sealed."""

    async def get(self) -> None:
        self.answer(AuditSealsAnswer, await self.reader.seals(self.context.at(utcnow())))


class AuditFollowHandler(_AuditHandler):
    """GET /api/audit/follow: what has come since, as soon as there is something."""

    _waiting: asyncio.Future[TailBatch] | None = None

    async def get(self) -> None:
        context, question, given = self.question(questions.AuditFollowQuery)
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
        self.answer(AuditTailAnswer, {"events": batch.events, "next": following, "names": batch.names})

    def on_connection_close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()


class AuditExportHandler(_AuditHandler):
    """GET /api/audit/export: the events as a file, oldest first."""

    async def get(self) -> None:
        context, question, given = self.question(questions.AuditExportQuery)
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


ROUTES = (
    Route("/api/audit", AuditHandler, Operation(
        "get", "What has happened, for auditors and admins.", AuditAnswer,
        query=questions.AuditQuery, errors=(422, 503),
    )),
    Route("/api/audit/events/{seq}", AuditEventHandler, Operation(
        "get", "One event.", AuditOneAnswer, errors=(404, 503),
    )),
    Route("/api/audit/timeline", AuditTimelineHandler, Operation(
        "get", "How much happened when.", AuditTimelineAnswer,
        query=questions.AuditFilter, errors=(422, 503),
    )),
    Route("/api/audit/summary", AuditSummaryHandler, Operation(
        "get", "What a reviewer asks first.", AuditSummaryAnswer,
        query=questions.AuditTimes, errors=(422, 503),
    )),
    Route("/api/audit/seals", AuditSealsHandler, Operation(
        "get", "How far the log is sealed.", AuditSealsAnswer, errors=(503,),
    )),
    Route("/api/audit/follow", AuditFollowHandler, Operation(
        "get", "What has come since, as soon as there is something.", AuditTailAnswer,
        query=questions.AuditFollowQuery, errors=(422, 429, 503),
    )),
    Route("/api/audit/export", AuditExportHandler, Operation(
        "get", "The events as a file, oldest first.", None,
        query=questions.AuditExportQuery, errors=(403, 422, 503), media="*/*",
    )),
)  # fmt: skip
