"""A seal and its parts, the key that signs it, and both as text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# What comes before the first seal.
NOTHING = bytes(32)
# Beyond every transaction: the end of an epoch.
LAST_XID = 2**64 - 1
_PURPOSE = b"pairing-server audit seal 1\n"
_KEY = "ed25519:"


class SealFormatError(ValueError):
    """A key, a seal or an export that is not in its form; the text says what was expected."""


def compact(value: object) -> str:
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


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, and the number of the last seal that it is trusted for: a key that was replaced signs no later one."""

    public: bytes
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> TrustedKey:
        """`ed25519:…`, or `ed25519:…@1204`. Raises SealFormatError."""
        key, marked, last = text.strip().partition("@")
        if marked and not (last.isascii() and last.isdecimal() and len(last) < 19):
            raise SealFormatError(
                f"expected a number after @, that of the last seal that the key is trusted for, got {last[:40]!r}"
            )
        return cls(parse_key(key), int(last) if marked else None)

    def __str__(self) -> str:
        return format_key(self.public) + (f"@{self.last}" if self.last is not None else "")


# The public keys that are trusted, each with the number of the last seal that it is trusted for; None: any.
Trusted = Mapping[bytes, int | None]


def trusted_of(keys: Iterable[TrustedKey]) -> Trusted:
    return {key.public: key.last for key in keys}


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
    def sealed_seconds(self) -> float:
        """When it was made, in Unix seconds."""
        return datetime.fromisoformat(self.sealed_at).timestamp()

    @property
    def next_epoch(self) -> int:
        """The epoch of the next seal: the same, until it is sealed to its end."""
        return self.epoch + 1 if self.to_xid == LAST_XID else self.epoch

    @property
    def statement(self) -> bytes:
        """What is signed, and what the digest is of."""
        return compact(self._fields()).encode()

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.statement).digest()

    @property
    def line(self) -> str:
        """The seal as a line of an export."""
        signature = base64.b64encode(self.signature).decode()
        return compact({**self._fields(), "digest": self.digest.hex(), "signature": signature})

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

    @property
    def is_signed(self) -> bool:
        """Whether its public key has signed just this."""
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
