"""What the audit log's questions, seals and retention work with."""

from __future__ import annotations

from dataclasses import dataclass

from pairing_server.audit.query import AuditReader
from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.retention import Retention
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.seals.verification import Verifier
from pairing_server.audit.tail import AuditTail
from pairing_server.db.database import Database


@dataclass(slots=True)
class Deps:
    """`reading` is the same database, for questions to the audit log: few connections, and more time."""

    database: Database
    reading: Database
    audit: AuditLog
    audit_reader: AuditReader
    audit_tail: AuditTail
    sealer: Sealer
    verifier: Verifier
    retention: Retention
