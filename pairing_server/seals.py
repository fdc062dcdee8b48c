"""Seals of the audit log: how they are made, signed and checked, in the database and in an export. No I/O.

A *line* is one event as JSON text, made by the database; what is hashed are the line's bytes, so whoever has the
lines can check them with nothing but SHA-256 and Ed25519. docs/audit.md describes the format.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

EXPORT = "pairing-server audit 1"
# What comes before the first seal.
NOTHING = bytes(32)
_PURPOSE = b"pairing-server audit seal 1\n"
_KEY = "ed25519:"
# How many rows of a bad seal are named.
_NAMED = 20


class SealFormatError(ValueError):
    """A key, a seal or an export that is not in its form; the text says what was expected."""


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def format_key(public: bytes) -> str:
    """A public key as it is printed and given to `--key`."""
    return _KEY + base64.b64encode(public).decode()


def parse_key(text: str) -> bytes:
    """The 32 bytes of a key's text form. Raises SealFormatError."""
    try:
        raw = base64.b64decode(text.strip().removeprefix(_KEY), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise SealFormatError(
            "expected ed25519: and 32 bytes in base64, as `pairing-server audit key` prints"
        )
    return raw


class SealKey:
    """The private key that signs."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealKey) and other.public == self.public

    def __hash__(self) -> int:
        return hash(self.public)

    @classmethod
    def generate(cls) -> tuple[SealKey, str]:
        """A new key, and the text to keep it as."""
        seed = Ed25519PrivateKey.generate().private_bytes_raw()
        return cls(seed), format_key(seed)

    @classmethod
    def parse(cls, text: str) -> SealKey:
        """Raises SealFormatError."""
        return cls(parse_key(text))

    def sign(self, seal: Seal) -> Seal:
        """The seal, signed."""
        unsigned = replace(seal, public_key=self.public)
        return replace(unsigned, signature=self._private.sign(_PURPOSE + unsigned.statement))


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one month in a seal: how many, and the digest of the digests of their lines."""

    month: str
    rows: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """All that transactions from `from_xid` to before `to_xid` have recorded in that epoch, chained to the seal before."""

    number: int
    epoch: int
    from_xid: int
    to_xid: int
    parts: tuple[Part, ...]
    previous: bytes
    sealed_at: str
    node: str
    public_key: bytes = b""
    signature: bytes = b""

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def statement(self) -> bytes:
        """What is signed, and what the digest is of."""
        return _compact(self._fields()).encode()

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.statement).digest()

    @property
    def line(self) -> str:
        """The seal as a line of an export."""
        signature = base64.b64encode(self.signature).decode()
        return _compact({**self._fields(), "digest": self.digest.hex(), "signature": signature})

    def _fields(self) -> dict[str, object]:
        return {
            "seal": self.number,
            "epoch": self.epoch,
            "from_xid": str(self.from_xid),
            "to_xid": str(self.to_xid),
            "rows": self.rows,
            "parts": parts_as_json(self.parts),
            "previous": self.previous.hex(),
            "sealed_at": self.sealed_at,
            "node": self.node,
            "public_key": format_key(self.public_key),
        }

    def is_signed_by(self, trusted: Collection[bytes]) -> bool:
        """Whether one of these public keys has signed just this."""
        if self.public_key not in trusted:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(
                self.signature, _PURPOSE + self.statement
            )
        except (InvalidSignature, ValueError):
            return False
        return True


def parts_as_json(parts: Iterable[Part]) -> list[dict[str, object]]:
    return [{"month": part.month, "rows": part.rows, "digest": part.digest.hex()} for part in parts]


def parts_from_json(found: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:
    return tuple(Part(str(part["month"]), int(part["rows"]), bytes.fromhex(part["digest"])) for part in found)


def seal_from_line(found: Mapping[str, Any]) -> Seal:
    """The seal of an export's line. Raises SealFormatError."""
    try:
        return Seal(
            number=int(found["seal"]),
            epoch=int(found["epoch"]),
            from_xid=int(found["from_xid"]),
            to_xid=int(found["to_xid"]),
            parts=parts_from_json(found["parts"]),
            previous=bytes.fromhex(found["previous"]),
            sealed_at=str(found["sealed_at"]),
            node=str(found["node"]),
            public_key=parse_key(found["public_key"]),
            signature=base64.b64decode(found["signature"], validate=True),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SealFormatError(f"a seal is not in its form: {error}") from None


class Rows:
    """Rows of one month, added in the order of (transaction, seq)."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, row: bytes) -> None:
        """`row`: the digest of its line."""
        self.count += 1
        self._digest.update(row)

    @property
    def digest(self) -> bytes:
        return self._digest.digest()


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong. `seal`: the seal's number."""

    seal: int
    what: str


class Chain:
    """Seals, given one after the other with the rows that are there, and the first fault among them."""

    def __init__(self, trusted: Collection[bytes], *, whole: bool = True) -> None:
        """`whole`: the first seal must be number 1. Otherwise the chain begins with whichever comes first."""
        self._trusted = trusted
        self._last: Seal | None = None
        self._whole = whole
        self.seals = 0
        self.rows = 0

    @property
    def last(self) -> Seal | None:
        return self._last

    def add(self, seal: Seal, rows: Mapping[str, Rows], gone: Collection[str] = ()) -> Fault | None:
        """What is wrong with the seal; `gone`: the months whose rows are known not to be there any more."""
        what = self._out_of_place(seal) or self._forged(seal) or self._other_rows(seal, rows, gone)
        if what is not None:
            return what if isinstance(what, Fault) else Fault(seal.number, what)
        self._last = seal
        self.seals += 1
        self.rows += sum(found.count for found in rows.values())
        return None

    def _out_of_place(self, seal: Seal) -> Fault | str | None:
        expected = self._last.number + 1 if self._last else 1 if self._whole else seal.number
        if seal.number > expected:
            return Fault(expected, "is missing")
        if seal.number < expected:
            return "comes twice"
        previous = self._last.digest if self._last else NOTHING if self._whole else seal.previous
        if seal.previous != previous:
            return "does not continue the seal before it"
        if self._last and self._last.epoch == seal.epoch and self._last.to_xid != seal.from_xid:
            return "does not begin where the seal before it ends"
        return None

    def _forged(self, seal: Seal) -> str | None:
        if seal.public_key not in self._trusted:
            return f"is signed by a key that is not trusted: {format_key(seal.public_key)}"
        return None if seal.is_signed_by(self._trusted) else "has been changed: its signature is wrong"

    @staticmethod
    def _other_rows(seal: Seal, rows: Mapping[str, Rows], gone: Collection[str]) -> str | None:
        expected = {part.month: part for part in seal.parts}
        for month in sorted({*expected, *rows}):
            part, found = expected.get(month, Part(month, 0, Rows().digest)), rows.get(month, Rows())
            if month in gone and not found.count:
                continue
            if found.count != part.rows:
                return f"had {part.rows} rows of {month[:4]}-{month[4:]} when it was made, and now has {found.count}"
            if found.digest != part.digest:
                return f"has other rows of {month[:4]}-{month[4:]} than when it was made"
        return None


@dataclass(slots=True)
class Report:
    """What a verification came to. `suspects`: rows under the bad seal; `unsealed`: rows after the last seal."""

    seals: int = 0
    rows: int = 0
    unsealed: int = 0
    fault: Fault | None = None
    last: Seal | None = None
    months: Sequence[str] = ()
    suspects: list[str] = field(default_factory=list)
    n_suspects: int = 0

    def suspect(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Name rows of the bad seal."""
        self.n_suspects = len(rows)
        self.suspects = [
            f"seq {row['seq']}  {row['recorded_at']}  {row['event']}  {row['outcome']}"
            for row in rows[:_NAMED]
        ]


# Exports


def header(months: Sequence[str], public_key: bytes, exported_at: str) -> str:
    """The first line of an export that has all rows of these months."""
    return _compact(
        {
            "export": EXPORT,
            "months": list(months),
            "public_key": format_key(public_key),
            "exported_at": exported_at,
        }
    )


def omitted(row: bytes, month: str) -> str:
    """The line that stands for a row which is not exported: enough to check the others."""
    return _compact({"omitted": row.hex(), "month": month})


def verify_export(lines: Iterable[bytes], trusted: Collection[bytes]) -> Report:
    """Check an export by itself. Raises SealFormatError if it is none."""
    numbered = enumerate(lines, 1)
    first = _parsed(*next(numbered, (1, b"")))
    if first.get("export") != EXPORT or not isinstance(first.get("months"), list):
        raise SealFormatError(f"the first line is not that of an export ({EXPORT})")
    months = [str(month) for month in first["months"]]
    chain = Chain(trusted, whole=False)
    report = Report(months=months)
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
                break
            rows, kept = {}, []
        else:
            month, digest = _row(number, found, line.rstrip(b"\r\n"))
            rows.setdefault(month, Rows()).add(digest)
            if "omitted" not in found:
                kept.append(found)
    else:
        report.unsealed = sum(of_month.count for of_month in rows.values())
    report.seals, report.rows, report.last = chain.seals, chain.rows, chain.last
    return report


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
