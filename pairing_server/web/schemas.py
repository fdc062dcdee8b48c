"""Bodies of HTTP requests and answers. The OpenAPI contract is made from these."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from marshmallow import EXCLUDE, ValidationError, fields, missing, validate
from marshmallow import Schema as AnySchema

from pairing_server.services.lockouts import KINDS

_SESSION_ID = validate.Regexp(
    r"\A[A-Za-z0-9._:-]{8,128}\Z", error="Must be 8 to 128 characters of A-Z a-z 0-9 . _ : -"
)


def _session_id(example: str) -> fields.String:
    # The contract's pattern is ECMAScript's, which has no \A and \Z.
    shown = {"pattern": r"^[A-Za-z0-9._:-]{8,128}$", "example": example}
    return fields.String(required=True, validate=_SESSION_ID, metadata=shown)


# PostgreSQL cannot store NUL.
NO_NUL = validate.ContainsNoneOf("\x00", error="Must not have control characters.")


def storable(instant: datetime) -> None:
    """Whether the database can store the instant, with any UTC offset. Raises ValidationError."""
    if not 1970 <= instant.year < 9999:
        raise ValidationError("Must be a year from 1970 to 9998.")


def _always(value: bool | str) -> fields.Constant[bool | str]:
    kind = "boolean" if isinstance(value, bool) else "string"
    return fields.Constant(value, required=True, metadata={"type": kind, "enum": [value]})


class Schema(AnySchema):
    """Ignores unknown fields of a request."""

    class Meta:
        unknown = EXCLUDE


class Instant(fields.DateTime):
    """RFC 3339, UTC, with Z."""

    def _serialize(self, value: Any, attr: str | None, obj: object, **kwargs: Any) -> str | None:
        text = super()._serialize(value, attr, obj, **kwargs)
        return text.replace("+00:00", "Z") if isinstance(text, str) else None


class Flag(fields.Boolean):
    """true or false only; marshmallow would also take 1 and "yes"."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class RegisterBody(Schema):
    username = fields.String(required=True, validate=validate.Length(3, 64))
    password = fields.String(required=True, validate=validate.Length(12, 128))


class LoginBody(Schema):
    username = fields.String(required=True, validate=[validate.Length(1, 256), NO_NUL])
    password = fields.String(required=True, validate=validate.Length(1, 1024))


class LogoutBody(Schema):
    everywhere = Flag(load_default=False, metadata={"description": "all logins of the user"})


class WsTokenBody(Schema):
    username = fields.String(
        validate=validate.Length(0, 128),
        allow_none=True,
        metadata={"description": "A label for display; never identity."},
    )


class GenerateBody(Schema):
    desktop_session_id = _session_id("desktop-session-unique-id")


class PairBody(Schema):
    code = fields.String(
        required=True,
        validate=validate.Length(1, 32),
        metadata={
            "description": "Six digits; spaces and hyphens are ignored.",
            "pattern": "^[ -]*([0-9][ -]*){6}$",
            "example": "123456",
        },
    )
    mobile_session_id = _session_id("mobile-session-unique-id")


class RegisteredAnswer(Schema):
    user_id = fields.String(required=True)
    username = fields.String(required=True)


class LoginAnswer(Schema):
    token = fields.String(required=True)
    token_type = _always("Bearer")
    expires_in = fields.Integer(required=True, metadata={"description": "seconds"})


class WsTokenAnswer(Schema):
    token = fields.String(required=True)
    expires_in = fields.Integer(required=True, metadata={"description": "seconds"})


class LoggedOutAnswer(Schema):
    success = _always(True)
    connections_closed = fields.Integer(required=True, metadata={"description": "on this server"})


class AccountDeletedAnswer(Schema):
    success = _always(True)
    pairings = fields.Integer(required=True, metadata={"description": "live pairings that have ended"})


class OwnLoginAnswer(Schema):
    id = fields.String(required=True, attribute="login.login_id")
    created_at = Instant(required=True, attribute="login.created_at")
    expires_at = Instant(required=True, attribute="login.expires_at")
    seen_at = Instant(required=True, attribute="login.seen_at")
    address = fields.String(required=True, allow_none=True, attribute="login.address")
    current = fields.Boolean(required=True, metadata={"description": "the login that asks"})
    connections = fields.Integer(required=True, metadata={"description": "open on this server"})


class OwnLoginsAnswer(Schema):
    logins = fields.List(fields.Nested(OwnLoginAnswer), required=True)


class LockoutAnswer(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(sorted(KINDS)))
    key = fields.String(required=True, metadata={"description": "a subject, a username or an address"})
    until = Instant(required=True)
    level = fields.Integer(required=True, metadata={"description": "how many locks in a row"})


class LockoutsAnswer(Schema):
    lockouts = fields.List(fields.Nested(LockoutAnswer), required=True)


class DoneAnswer(Schema):
    success = _always(True)


class CodeAnswer(Schema):
    code = fields.String(required=True)
    expires_at = Instant(required=True)
    expires_in = fields.Integer(required=True, metadata={"description": "seconds"})
    channel_id = fields.String(required=True)
    channelId = fields.String(required=True)  # noqa: N815  the wire's other spelling
    pairing_uri = fields.String(required=True)


class PairedAnswer(Schema):
    success = _always(True)
    channel_id = fields.String(required=True)
    channelId = fields.String(required=True)  # noqa: N815  the wire's other spelling
    message = _always("Device paired successfully")


class PairingAnswer(Schema):
    id = fields.UUID(required=True)
    state = fields.String(
        required=True, validate=validate.OneOf(["pending", "redeemed", "active", "waiting"])
    )
    desktop_session_id = fields.String(required=True, attribute="desktop.session_id")
    mobile_session_id = fields.String(required=True, attribute="mobile.session_id", allow_none=True)
    created_at = Instant(required=True)
    expires_at = Instant(required=True)
    redeemed_at = Instant(required=True, allow_none=True)
    activated_at = Instant(required=True, allow_none=True)

    def get_attribute(self, obj: object, attr: str, default: object) -> object:
        found = super().get_attribute(obj, attr, default)
        return None if found is missing else found


class PairingsAnswer(Schema):
    pairings = fields.List(fields.Nested(PairingAnswer), required=True)


class UnpairedAnswer(Schema):
    success = _always(True)
    id = fields.UUID(required=True)


class HealthAnswer(Schema):
    status = fields.String(required=True)


class ErrorAnswer(Schema):
    success = _always(False)
    error = fields.String(required=True)
    message = fields.String(required=True)
    details = fields.Dict(required=True)
