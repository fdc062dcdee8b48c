"""Seals of the audit log: how they are made, signed and checked, in the database and in an export. No I/O.

A *line* is one event as JSON text, made by the database. The line's bytes are hashed, so that SHA-256 and Ed25519 are
enough to check lines. docs/audit.md describes the format.
"""

from pairing_server.audit.seals.chain import Chain, Fault, Report, Rows
from pairing_server.audit.seals.dropped_months import DroppedMonths, RetentionRow
from pairing_server.audit.seals.export import header, omitted, verify_export
from pairing_server.audit.seals.recording_times import RecordingTimes
from pairing_server.audit.seals.seal import (
    LAST_XID,
    NOTHING,
    Part,
    Seal,
    SealFormatError,
    SealKey,
    Trusted,
    TrustedKey,
    format_key,
    parse_key,
    parts_as_json,
    parts_from_json,
    seal_from_line,
    trusted_of,
)

__all__ = [
    "LAST_XID",
    "NOTHING",
    "Chain",
    "DroppedMonths",
    "Fault",
    "Part",
    "RecordingTimes",
    "Report",
    "RetentionRow",
    "Rows",
    "Seal",
    "SealFormatError",
    "SealKey",
    "Trusted",
    "TrustedKey",
    "format_key",
    "header",
    "omitted",
    "parse_key",
    "parts_as_json",
    "parts_from_json",
    "seal_from_line",
    "trusted_of",
    "verify_export",
]
