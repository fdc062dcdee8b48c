"""An export of the audit log, which can be verified by itself: its lines, and whether they fit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pairing_server.audit.seals.chain import Chain, Report, Rows, named
from pairing_server.audit.seals.recording_times import RecordingTimes
from pairing_server.audit.seals.seal import (
    SealFormatError,
    Trusted,
    compact,
    format_key,
    seal_from_line,
)

EXPORT = "pairing-server audit 1"


def header(months: Sequence[str], public_key: bytes, exported_at: str) -> str:
    """The first line of an export that has all rows of these months."""
    return compact(
        {
            "export": EXPORT,
            "months": list(months),
            "public_key": format_key(public_key),
            "exported_at": exported_at,
        }
    )


def omitted(row: bytes, month: str) -> str:
    """The line that stands for a row which is not exported: enough to check the others."""
    return compact({"omitted": row.hex(), "month": month})


def verify_export(lines: Iterable[bytes], trusted: Trusted | Collection[bytes]) -> Report:
    """Check an export by itself. Raises SealFormatError if the lines are not an export.

    Of the seals' months those that the first line does not name are not in it: `omitted` of the report counts their rows.
    """
    numbered = enumerate(lines, 1)
    first = _parsed(*next(numbered, (1, b"")))
    if first.get("export") != EXPORT or not isinstance(first.get("months"), list):
        raise SealFormatError(f"the first line is not that of an export ({EXPORT})")
    months = [str(month) for month in first["months"]]
    chain = Chain(trusted, whole=False)
    report = Report(months=months)
    times = RecordingTimes()
    rows: dict[str, Rows] = {}
    kept: list[Mapping[str, Any]] = []
    for number, line in numbered:
        found = _parsed(number, line)
        if "seal" in found:
            seal = seal_from_line(found)
            gone = {part.month for part in seal.parts} - set(months)
            report.fault = chain.add(seal, rows, gone)
            if report.fault is not None:
                report.suspect(kept)
                report.unseen = 0
                break
            report.omitted += sum(part.rows for part in seal.parts if part.month in gone)
            _look_at_times(report, times, kept, seal.sealed_seconds)
            rows, kept = {}, []
        else:
            month, digest = _row(number, found, line.rstrip(b"\r\n"))
            rows.setdefault(month, Rows()).add(digest)
            if "omitted" not in found:
                kept.append(found)
    else:
        report.unsealed = sum(of_month.count for of_month in rows.values())
        _look_at_times(report, times, kept, math.inf)
    report.seals, report.rows, report.last = chain.seals, chain.rows, chain.last
    return report


def _look_at_times(
    report: Report, times: RecordingTimes, rows: Iterable[Mapping[str, Any]], until: float
) -> None:
    """Report rows whose time is impossible; `until`: when they were sealed."""
    for row in rows:
        try:
            transaction = (int(row["epoch"]), int(row["xid"]))
            recorded_at = datetime.fromisoformat(row["recorded_at"]).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError):
            what: str | None = "has no time, or no transaction"
        else:
            what = times.fault(transaction, recorded_at, until)
        if what is not None:
            report.stray(f"{named(row)}: {what}")


def _parsed(number: int, line: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SealFormatError(f"line {number} is not a JSON object")
    return found


def _row(number: int, found: Mapping[str, Any], line: bytes) -> tuple[str, bytes]:
    """The month and the digest of a row's line."""
    try:
        if "omitted" in found:
            return str(found["month"]), bytes.fromhex(found["omitted"])
        at = str(found["recorded_at"])
        for name in ("seq", "event", "outcome"):
            found[name]
        return at[:4] + at[5:7], hashlib.sha256(line).digest()
    except (KeyError, TypeError, ValueError):
        raise SealFormatError(f"line {number} is neither an event nor a seal") from None
