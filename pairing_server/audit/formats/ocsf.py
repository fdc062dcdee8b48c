"""Events in the Open Cybersecurity Schema Framework, version 1.3: https://schema.ocsf.io

An event is of a class and an activity of that class; `type_uid` is class × 100 + activity. What the schema has no
place for goes to `unmapped`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from pairing_server.audit.store.search import Recorded

VERSION = "1.3.0"
OTHER = 99
# syslog's 0 (emergency) to 7 (debug), as Fatal 6 to Informational 1.
_SEVERITY = (6, 5, 5, 4, 3, 2, 1, 1)
_STATUS = {"success": 1, "failure": 2, "denied": 2, "error": 2}


class Type(NamedTuple):
    """A class of the schema, and one of its activities."""

    class_uid: int
    activity: int

    @property
    def uid(self) -> int:
        return self.class_uid * 100 + self.activity


ACCOUNT_CHANGE, AUTHENTICATION, AUTHORIZE_SESSION, ENTITY, USER_ACCESS = 3001, 3002, 3003, 3004, 3005
NETWORK, LIFECYCLE, API = 4001, 6002, 6003

CLASSES = {
    ACCOUNT_CHANGE: "Account Change",
    AUTHENTICATION: "Authentication",
    AUTHORIZE_SESSION: "Authorize Session",
    ENTITY: "Entity Management",
    USER_ACCESS: "User Access Management",
    NETWORK: "Network Activity",
    LIFECYCLE: "Application Lifecycle",
    API: "API Activity",
}
_OF_USERS = (ACCOUNT_CHANGE, AUTHENTICATION, AUTHORIZE_SESSION, USER_ACCESS)

TYPES: Mapping[str, Type] = {
    "auth.login": Type(AUTHENTICATION, 1),
    "auth.logout": Type(AUTHENTICATION, 2),
    "auth.token_issued": Type(AUTHENTICATION, 3),
    "auth.token_refreshed": Type(AUTHENTICATION, 5),
    "auth.lockout": Type(ACCOUNT_CHANGE, 9),
    "account.created": Type(ACCOUNT_CHANGE, 1),
    "account.enabled": Type(ACCOUNT_CHANGE, 2),
    "account.password_changed": Type(ACCOUNT_CHANGE, 3),
    "account.disabled": Type(ACCOUNT_CHANGE, 5),
    "account.deleted": Type(ACCOUNT_CHANGE, 6),
    "account.role_changed": Type(USER_ACCESS, 3),
    "access.denied": Type(API, 2),
    "pairing.code_created": Type(ENTITY, 1),
    "pairing.redeem": Type(AUTHORIZE_SESSION, 1),
    "pairing.confirmed": Type(AUTHORIZE_SESSION, 1),
    "pairing.code_expired": Type(ENTITY, 4),
    "pairing.closed": Type(ENTITY, 4),
    "session.bound": Type(AUTHORIZE_SESSION, 1),
    "ws.connected": Type(NETWORK, 1),
    "ws.disconnected": Type(NETWORK, 2),
    "ws.rejected": Type(NETWORK, 5),
    "channel.joined": Type(NETWORK, 1),
    "channel.left": Type(NETWORK, 2),
    "channel.replaced": Type(NETWORK, 3),
    "channel.denied": Type(NETWORK, 5),
    "config.changed": Type(API, 3),
    "key.rotated": Type(API, 3),
    "audit.query": Type(API, 2),
    "audit.export": Type(API, 2),
    "audit.verify": Type(API, 2),
    "audit.seal": Type(API, 1),
    "audit.retention": Type(API, 4),
    "system.started": Type(LIFECYCLE, 3),
    "system.stopping": Type(LIFECYCLE, 4),
    "audit.started": Type(LIFECYCLE, 3),
    "audit.stopped": Type(LIFECYCLE, 4),
}
# The rest, by family: an activity that the schema does not name.
_FAMILIES = {
    "auth": Type(AUTHENTICATION, OTHER),
    "account": Type(ACCOUNT_CHANGE, OTHER),
    "pairing": Type(ENTITY, OTHER),
    "session": Type(AUTHORIZE_SESSION, OTHER),
    **dict.fromkeys(("ws", "channel", "msg", "limit"), Type(NETWORK, OTHER)),
    **dict.fromkeys(("system", "db"), Type(LIFECYCLE, OTHER)),
}


def type_of(name: str) -> Type:
    """The class and activity of the event of that name."""
    return TYPES.get(name) or _FAMILIES.get(name.partition(".")[0], Type(API, OTHER))


def event(recorded: Recorded, names: Mapping[str, str]) -> dict[str, Any]:
    """The event. `names`: those of accounts, by their subject."""
    of, kind = recorded.event, type_of(recorded.event.event)
    made: dict[str, Any] = {
        "activity_id": kind.activity,
        "category_uid": kind.class_uid // 1000,
        "class_uid": kind.class_uid,
        "class_name": CLASSES[kind.class_uid],
        "type_uid": kind.uid,
        "time": _millis(of.occurred_at),
        "severity_id": _SEVERITY[of.severity],
        "status_id": _STATUS[of.outcome],
        "count": of.count,
        "message": f"{of.event} {of.outcome}",
        "metadata": {
            "version": VERSION,
            "product": {"name": "pairing-server", "vendor_name": "pairing-server", "version": of.app_version},
            "uid": str(of.event_id),
            "event_code": of.event,
            "log_name": "audit",
            "logged_time": _millis(recorded.recorded_at),
            "sequence": recorded.seq,
        },
        "actor": {"user": _user(recorded, names)},
        "src_endpoint": {"ip": of.address} if of.address else {"name": of.node},
        "dst_endpoint": {"hostname": of.node},
        "unmapped": _unmapped(recorded),
    }
    if kind.activity == OTHER:
        made["activity_name"] = of.event
    if of.reason:
        made["status_detail"] = of.reason
    made |= _of_class(kind.class_uid, recorded, names)
    return made


def _of_class(class_uid: int, recorded: Recorded, names: Mapping[str, str]) -> dict[str, Any]:
    """What the class requires."""
    of = recorded.event
    if class_uid in _OF_USERS:
        target = of.attrs.get("target")
        user = {"uid": str(target), "type_id": 1} if target else _user(recorded, names)
        return {"user": user, **({"auth_protocol": of.auth_method} if of.auth_method else {})}
    if class_uid == ENTITY:
        return {"entity": {"type": "pairing", "uid": str(of.pairing_id) if of.pairing_id else "unknown"}}
    if class_uid == LIFECYCLE:
        return {"app": {"name": "pairing-server", "version": of.app_version}}
    if class_uid == API:
        return {"api": {"operation": str(of.attrs.get("route") or of.event)}}
    return {}


def _user(recorded: Recorded, names: Mapping[str, str]) -> dict[str, Any]:
    of = recorded.event
    # 1: a user, 2: an administrator, 3: the system itself.
    type_id = {"admin": 2, "system": 3}.get(of.actor_kind, 1)
    known = {"uid": of.actor_subject, "name": names.get(of.actor_subject or "") or of.actor_kind}
    return {"type_id": type_id, **{key: value for key, value in known.items() if value}}


def _unmapped(recorded: Recorded) -> dict[str, Any]:
    of = recorded.event
    ids = {"pairing": of.pairing_id, "connection": of.connection_id, "request": of.request_id}
    return {
        **{name: str(value) for name, value in ids.items() if value is not None},
        "actor_kind": of.actor_kind,
        "outcome": of.outcome,
        "severity": of.severity,
        "attrs": dict(of.attrs),
    }


def _millis(at: datetime) -> int:
    return round(at.timestamp() * 1000)
