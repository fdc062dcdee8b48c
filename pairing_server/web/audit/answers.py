"""Answers to questions about the audit log, of the API and of the command line with --json."""

from __future__ import annotations

from marshmallow import fields

from pairing_server.audit.seals import format_key
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
