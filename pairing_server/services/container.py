"""The services of one process, built once by the composition root (server/backend.py)."""

from __future__ import annotations

from dataclasses import dataclass

from pairing_server.audit.query import AuditReader
from pairing_server.audit.retention import Retention
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.seals.verification import Verifier
from pairing_server.audit.tail import AuditTail
from pairing_server.services.accounts import AccountService
from pairing_server.services.authentication import AuthenticationService
from pairing_server.services.confirmations import ConfirmationService
from pairing_server.services.erasure import ErasureService
from pairing_server.services.lockouts import LockoutService
from pairing_server.services.logins import LoginService
from pairing_server.services.membership import MembershipService
from pairing_server.services.nodes import NodeRegistry
from pairing_server.services.pairing_changes import PairingChanges
from pairing_server.services.pairings import PairingService
from pairing_server.services.presence import Presence
from pairing_server.services.signing_keys import SigningKeys


@dataclass(frozen=True, slots=True)
class AuditServices:
    """The audit log apart from recording: questions, seals and retention."""

    reader: AuditReader
    tail: AuditTail
    sealer: Sealer
    verifier: Verifier
    retention: Retention


@dataclass(frozen=True, slots=True)
class Services:
    """Those that requests, connections and commands ask; the scheduler's are the backend's."""

    accounts: AccountService
    erasure: ErasureService
    authentication: AuthenticationService
    logins: LoginService
    pairings: PairingService
    changes: PairingChanges
    membership: MembershipService
    confirmations: ConfirmationService
    nodes: NodeRegistry
    presence: Presence
    lockouts: LockoutService
    signing_keys: SigningKeys
    audit: AuditServices
