"""What the services work with, built once by the composition root, and who is asking them."""

from __future__ import annotations

from dataclasses import dataclass

from pairing_server.audit.query import AuditReader
from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.retention import Retention
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.seals.verification import Verifier
from pairing_server.audit.tail import AuditTail
from pairing_server.db.database import Database
from pairing_server.relay.hub import Hub
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import Keyring
from pairing_server.security.limits import SlidingWindow
from pairing_server.security.passwords import Passwords
from pairing_server.security.tokens import Tokens
from pairing_server.services.account_status import RecentlyEnabled
from pairing_server.services.brute_force_guard import BruteForceGuard
from pairing_server.services.codes import Codes, LiveCodes
from pairing_server.services.rate_limits import KeyedLock
from pairing_server.services.revocation_list import RevocationList
from pairing_server.services.rules import PairingRules
from pairing_server.tracing import OFF, Traces


@dataclass(slots=True)
class Deps:
    """`reading` is the same database, for questions to the audit log: few connections, and more time.

    `rules` and `registration_open` change when the settings are read again, and nothing else does.
    """

    database: Database
    reading: Database
    audit: AuditLog
    audit_reader: AuditReader
    audit_tail: AuditTail
    sealer: Sealer
    verifier: Verifier
    retention: Retention
    hub: Hub
    tokens: Tokens
    revoked: RevocationList
    passwords: Passwords
    keyring: Keyring
    codes: Codes
    rules: PairingRules
    live: LiveCodes
    alarm: BruteForceGuard
    turns: KeyedLock
    enabled: RecentlyEnabled
    codes_by_user: SlidingWindow
    codes_by_address: SlidingWindow
    registration_open: bool = False
    single_use: bool = False
    keyfile: KeyFile | None = None
    traces: Traces = OFF
