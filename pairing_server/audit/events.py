"""The inventory of the audit log: every event, when it is recorded, and its attributes.

An event is one line here and one in docs/audit.md; a test compares them, and looks for where it is recorded and for a
test of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spec:
    """`good` and `bad`: the severity (syslog's) of a success, and of every other outcome. `act`: recorded in the
    transaction of the act. `attrs`: the names of its attributes, besides what every event has."""

    good: int
    bad: int
    act: bool
    attrs: frozenset[str]
    when: str


ACT, LATER = True, False


def _spec(severity: int | tuple[int, int], act: bool, attrs: str, when: str) -> Spec:
    good, bad = severity if isinstance(severity, tuple) else (severity, severity)
    return Spec(good, bad, act, frozenset(attrs.split()), when)


_FILTERS = "since until event actor address pairing connection outcome severity"

# fmt: off
EVENTS: Mapping[str, Spec] = {
    "auth.login": _spec((6, 4), ACT, "target limit", "A login succeeds or fails."),
    "auth.lockout": _spec(4, ACT, "scope until target", "A limit of failed logins or redemptions locks a user or an address out, or an administrator lifts that."),
    "auth.logout": _spec(6, ACT, "target sid everywhere sockets_closed", "A user ends one login, or all of them."),
    "auth.token_revoked": _spec(5, ACT, "target sid jti by sockets_closed", "A user or an administrator ends logins or revokes a token."),
    "auth.token_issued": _spec((6, 4), ACT, "kind jti sid kid expires_in device_type target degraded", "An access token or a ws token is issued."),
    "auth.token_refreshed": _spec((6, 4), LATER, "jti_old jti_new", "A connection goes on with a newer ws token."),
    "auth.token_rejected": _spec(4, LATER, "kind sid", "A token that is presented is not valid."),
    "auth.token_reuse": _spec(3, ACT, "jti target first_seen", "A ws token that is valid for one connection is presented again."),
    "auth.jwks_refresh": _spec((6, 4), LATER, "issuer added removed error", "A foreign issuer's keys have changed, or cannot be fetched."),
    "account.created": _spec(5, ACT, "target role", "An account is created."),
    "account.deleted": _spec(5, ACT, "target logins pairings", "An account is deleted with all that belongs to it, but for the audit log."),
    "account.disabled": _spec(5, ACT, "target", "An account is disabled."),
    "account.enabled": _spec(5, ACT, "target", "An account is enabled again."),
    "account.password_changed": _spec(5, ACT, "target", "A password is set."),
    "account.role_changed": _spec(4, ACT, "target was role", "An account gets another role."),
    "key.rotated": _spec((5, 4), ACT, "state kid added removed", "A signing key is added, retired, or taken over by a server."),
    "admin.action": _spec((5, 4), ACT, "command target via", "An administrator does something that has no event of its own."),
    "access.denied": _spec(4, ACT, "route needed", "A user asks for what only other roles may see."),
    "pairing.code_created": _spec((6, 4), ACT, "desktop_session expires_at", "A code is created."),
    "pairing.redeem": _spec((6, 4), ACT, "mobile_session ms_since_created", "A code is redeemed, or the attempt fails."),
    "pairing.confirmed": _spec(6, ACT, "by_session device mobile_address", "The desktop admits the phone that has sent its code."),
    "pairing.rejected": _spec(5, ACT, "by_session device mobile_address", "The desktop refuses the phone that has sent its code."),
    "pairing.bruteforce": _spec(2, ACT, "scope failures window_s measure until", "So many codes are tried that codes need the desktop's confirmation."),
    "pairing.code_expired": _spec(6, ACT, "age_s", "A code has expired without being redeemed."),
    "pairing.closed": _spec(6, ACT, "duration_s", "A pairing has ended: it was unpaired, deserted, superseded, or its devices never met (expired)."),
    "session.bound": _spec(6, ACT, "session_id device_type", "A session id is used for the first time and belongs to its user from then on."),
    "session.hijack_attempt": _spec(2, ACT, "session_id owner", "A client presents a session id of another user."),
    "ws.connected": _spec(6, LATER, "token_via jti device_type origin ua", "A WebSocket is opened with a valid token."),
    "ws.rejected": _spec(4, LATER, "", "A WebSocket is refused: its origin, too many connections, too many opened in a time, or no descriptor left."),
    "ws.disconnected": _spec(6, LATER, "close_code by duration_s messages_in", "A WebSocket has ended."),
    "channel.joined": _spec(6, LATER, "slot degraded", "A device has joined its channel."),
    "channel.left": _spec(6, LATER, "slot", "A device has left its channel."),
    "channel.denied": _spec(4, ACT, "trial", "A device may not join a channel: full, unknown, not_yours, ended, foreign, elsewhere; a `trial` is `doctor`'s own."),
    "channel.replaced": _spec(5, LATER, "", "A newer connection of the same device takes its place."),
    "msg.invalid": _spec(4, LATER, "rule", "A message is refused; by which rule."),
    "msg.too_large": _spec(4, LATER, "limit size", "A message is larger than its type may be."),
    "limit.rate": _spec(4, LATER, "scope limit retry_after_s retry_after_ms", "A connection sends too much."),
    "limit.slow_consumer": _spec(4, LATER, "buffered age_ms", "A device does not take what is sent to it."),
    "limit.protocol_abuse": _spec(3, LATER, "kind", "A connection floods the server with frames."),
    "audit.query": _spec((6, 4), ACT, f"kind rows number user {_FILTERS}", "A question is put to the audit log."),
    "audit.export": _spec((6, 4), ACT, f"state rows format sha256 user {_FILTERS}", "An export of the audit log begins, or ends, and how."),
    "audit.seal": _spec((6, 4), ACT, "seal_no n_rows digest", "Rows are sealed."),
    "audit.verify": _spec((6, 1), LATER, "seals rows excused pending reported first_bad", "The log is verified; severity 1 if something is wrong."),
    "audit.started": _spec(5, LATER, "spooled_bytes", "A server begins to record; how much an earlier run has left on disk."),
    "audit.stopped": _spec(5, LATER, "", "A server stops recording."),
    "audit.gap": _spec(3, LATER, "lost lost_by_severity", "Events could not be kept and are lost; how many."),
    "audit.retention": _spec(5, ACT, "partition ends rows last_seal", "An old partition is dropped."),
    "audit.rebase": _spec(5, ACT, "epoch", "A new epoch begins, because the database was restored and transaction ids begin anew."),
    "db.down": _spec((5, 3), LATER, "duration_s", "The database is away."),
    "db.up": _spec((5, 3), LATER, "duration_s", "The database is back."),
    "db.failover": _spec((5, 3), LATER, "duration_s", "The database was read-only, as after a failover, and is not any more."),
    "config.changed": _spec(5, LATER, "setting old new", "A setting was changed and taken over while the server runs; the values of secrets are left out."),
    "system.started": _spec(5, LATER, "schema", "A server starts."),
    "system.stopping": _spec(5, LATER, "", "A server stops."),
    "system.error": _spec(3, LATER, "where exception_class", "Something failed unexpectedly."),
}
# fmt: on


def row(name: str) -> str:
    """The event's line in the inventory of docs/audit.md."""
    spec = EVENTS[name]
    severity = f"{spec.good}" if spec.good == spec.bad else f"{spec.good}/{spec.bad}"
    attrs = ", ".join(f"`{attr}`" for attr in sorted(spec.attrs)) or "none"
    return f"| `{name}` | {severity} | {'yes' if spec.act else 'no'} | {spec.when} | {attrs} |"
