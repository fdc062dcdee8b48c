"""Who is at the other end of a socket: whose token opened it, from where, and which device it says it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """Who opened the socket, from its token. `expires_at`: monotonic seconds."""

    subject: str
    device_type: str
    token_id: str
    login_id: str
    label: str | None
    expires_at: float
    logged_in_at: datetime


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection. `address_key`: what limits count it by."""

    connection_id: str
    identity: Identity
    address: str
    address_key: str


@dataclass(frozen=True, slots=True)
class Device:
    """The device behind the socket, bound to the subject."""

    session_id: str
    user_agent: str | None = None
