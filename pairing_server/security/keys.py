"""Signing keys: their text form, and which of them signs. No I/O; `keyfile.py` has the file of keys."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

MIN_SECRET = 32
# Every server of an installation has a new key within this time: it looks at the file once a second, or an operator
# sends SIGHUP to one server after the other.
OVERLAP = timedelta(seconds=15)

_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str
    secret: bytes = field(repr=False)


def parse_keys(text: str) -> tuple[SigningKey, ...]:
    """The keys of "kid:secret,kid2:secret2", in order. Raises ValueError; its text holds no secret."""
    keys: list[SigningKey] = []
    for number, item in enumerate(text.split(","), start=1):
        kid, colon, secret = item.strip().partition(":")
        # An item without a colon may be a bare secret, so the error names its place and does not show it.
        if not colon:
            raise ValueError(f"key {number} is not kid:secret")
        if not _KID.fullmatch(kid):
            raise ValueError(f"the kid of key {number} must be 1 to 64 of A-Z a-z 0-9 . _ -")
        if any(key.kid == kid for key in keys):
            raise ValueError(f"the kid {kid!r} occurs twice")
        if len(secret.encode()) < MIN_SECRET:
            raise ValueError(f"the secret of key {kid!r} has fewer than {MIN_SECRET} bytes")
        keys.append(SigningKey(kid, secret.encode()))
    return tuple(keys)


def generate_key(now: datetime | None = None) -> SigningKey:
    """A new random key (384 bits) with a random kid, which begins with the minute of `now` if that is given."""
    made = f"{now:%Y%m%dT%H%MZ}-" if now else "k"
    return SigningKey(f"{made}{secrets.token_hex(4)}", secrets.token_urlsafe(48).encode())


def format_keys(keys: Sequence[SigningKey]) -> str:
    """The text from which `parse_keys` gives the same keys. It has the secrets. Raises ValueError."""
    text = ",".join(f"{key.kid}:{key.secret.decode()}" for key in keys)
    if parse_keys(text) != tuple(keys):
        raise ValueError("a secret with a comma or outer white space cannot be written as text")
    return text


class Keyring:
    """The keys of one process: the first signs, all verify. They can be replaced while the process runs.

    A new first key verifies at once but signs only after OVERLAP, when every other server has it too. Until then the
    key before it signs, unless that was removed. Raises ValueError without keys, or if two have the same kid.
    """

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._switch_at: datetime | None = None
        self._take(keys)
        self._signing = self.keys[0]

    def _take(self, keys: Sequence[SigningKey]) -> None:
        if not keys:
            raise ValueError("at least one key is needed")
        secrets_by_kid = {key.kid: key.secret for key in keys}
        if len(secrets_by_kid) != len(keys):
            raise ValueError("two keys have the same kid")
        self.keys = tuple(keys)
        self._secrets = secrets_by_kid

    def signing(self, now: datetime) -> SigningKey:
        """The key that signs now."""
        if self._switch_at is not None and now >= self._switch_at:
            self._signing, self._switch_at = self.keys[0], None
        return self._signing

    def secret(self, kid: str | None) -> bytes | None:
        """The secret of that key; None if the key is unknown."""
        return None if kid is None else self._secrets.get(kid)

    def in_order(self, now: datetime) -> list[SigningKey]:
        """All keys, the one that signs now first."""
        first = self.signing(now)
        return [first, *(key for key in self.keys if key != first)]

    def replace(self, keys: Sequence[SigningKey], now: datetime) -> bool:
        """Use these keys from now on. False if they are the same as before. Raises ValueError."""
        if tuple(keys) == self.keys:
            return False
        before = self.signing(now)
        self._take(keys)
        if before in self.keys and before != self.keys[0]:
            self._switch_at = now + OVERLAP
        else:
            self._signing, self._switch_at = self.keys[0], None
        return True
