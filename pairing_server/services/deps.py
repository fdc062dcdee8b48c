"""What the services work with, built once by the composition root, and who is asking them."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.tail import Followers
from pairing_server.db.database import Database
from pairing_server.relay.hub import Hub
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import Keyring
from pairing_server.security.limits import Rate, SlidingWindow
from pairing_server.security.passwords import Passwords
from pairing_server.security.tokens import Tokens
from pairing_server.services.account_status import SeenEnabled
from pairing_server.services.brute_force_guard import Alarm
from pairing_server.services.codes import Codes, LiveCodes
from pairing_server.services.rate_limits import Turns
from pairing_server.services.revocation_list import Revoked
from pairing_server.tracing import OFF, Traces


@dataclass(frozen=True, slots=True)
class PairingRules:
    """Durations in seconds."""

    code_ttl: int = 300
    same_user: bool = True
    guests: bool = False
    codes_per_user: int = 3
    max_live_codes: int = 50_000
    code_rate: Rate = Rate(5, 300)
    code_rate_address: Rate = Rate(100, 300)
    alarm: Rate = Rate(50, 60)
    reconnect_grace: int = 300
    name_kept: int = 600
    public_url: str = "http://127.0.0.1:8089"


@dataclass(slots=True)
class Deps:
    """`reading` is the same database, for questions to the audit log: few connections, and more time.

    `rules` and `registration_open` change when the settings are read again, and nothing else does.
    """

    database: Database
    reading: Database
    audit: AuditLog
    sealer: Sealer
    hub: Hub
    tokens: Tokens
    revoked: Revoked
    passwords: Passwords
    keyring: Keyring
    codes: Codes
    rules: PairingRules
    live: LiveCodes
    alarm: Alarm
    turns: Turns
    enabled: SeenEnabled
    codes_by_user: SlidingWindow
    codes_by_address: SlidingWindow
    registration_open: bool = False
    single_use: bool = False
    keyfile: KeyFile | None = None
    followers: Followers = field(default_factory=Followers)
    traces: Traces = OFF


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who is asking, for the decision and for the audit log. `subject` None: nobody has logged in.

    `address` is the client's after the proxy rules, `address_key` what limits count it by.
    """

    subject: str | None = None
    login_id: str | None = None
    address: str | None = None
    address_key: str = ""
    request_id: UUID | None = None
    connection_id: UUID | None = None
    kind: str = "anonymous"
