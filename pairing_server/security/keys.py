"""Signing keys: how they are written down, and which of them signs. No I/O, no clock of its own.

The file that they may be kept in is `keyfile.py`'s.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

MIN_SECRET = 32
# Every server of an installation learns of a new key within this time: of the file by looking once a second,
# of a credential by the SIGHUPs that an operator sends one after the other.
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
        # An item without a colon may be a bare secret: it is named by its place, never shown.
        if not colon:
            raise ValueError(f"key {number} is not kid:secret")
        if not _KID.fullmatch(kid):
            raise ValueError(f"the kid of key {number} must be 1 to 64 of A-Z a-z 0-9 . _ -")
        if any(key.kid == kid for key in keys):
            raise ValueError(f"the kid {kid!r} stands twice")
        if len(secret.encode()) < MIN_SECRET:
            raise ValueError(f"the secret of key {kid!r} has fewer than {MIN_SECRET} bytes")
        keys.append(SigningKey(kid, secret.encode()))
    return tuple(keys)


def generate_key(now: datetime | None = None) -> SigningKey:
    """A fresh random key (384 bits) with a random kid, which tells the minute it was made in if `now` is given."""
    made = f"{now:%Y%m%dT%H%MZ}-" if now else "k"
    return SigningKey(f"{made}{secrets.token_hex(4)}", secrets.token_urlsafe(48).encode())


def format_keys(keys: Sequence[SigningKey]) -> str:
    """The text that `parse_keys` reads back to the same keys; holds the secrets. Raises ValueError."""
    text = ",".join(f"{key.kid}:{key.secret.decode()}" for key in keys)
    if parse_keys(text) != tuple(keys):
        raise ValueError("a secret with a comma or outer white space cannot be written as text")
    return text


class Keyring:
    """The keys of one process: the first signs, all verify. They may be replaced while it runs.

    A new first key verifies at once, but signs only after OVERLAP: by then every other server knows it, too.
    Until then the one before goes on, unless that was taken away. Raises ValueError for keys that cannot be.
    """

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._turn: datetime | None = None
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
        if self._turn is not None and now >= self._turn:
            self._signing, self._turn = self.keys[0], None
        return self._signing

    def secret(self, kid: str | None) -> bytes | None:
        """The secret of that key, if it is one of them."""
        return None if kid is None else self._secrets.get(kid)

    def in_order(self, now: datetime) -> list[SigningKey]:
        """All of them, that which signs now first."""
        first = self.signing(now)
        return [first, *(key for key in self.keys if key != first)]

    def replace(self, keys: Sequence[SigningKey], now: datetime) -> bool:
        """Use these keys from now on. False if they are the same as before. Raises ValueError."""
        if tuple(keys) == self.keys:
            return False
        before = self.signing(now)
        self._take(keys)
        if before in self.keys and before != self.keys[0]:
            self._turn = now + OVERLAP
        else:
            self._signing, self._turn = self.keys[0], None
        return True
