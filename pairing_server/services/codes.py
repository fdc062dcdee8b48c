"""Codes: the six digits of a pairing and its channel's name, and about how many are live. Making and redeeming them:
services/pairings.py."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from pairing_server.errors import InvalidChannel
from pairing_server.store.codes import Draw

_CODE = re.compile(r"[0-9]{6}")
_CHANNEL = re.compile(r"pair-([0-9]{6})")


class Codes:
    """The six digits: drawn at random, known to the database only as a MAC under a server key.

    A plain hash of a million values would be no protection. The key is derived from the signing keys,
    the current one first, so that every server of one installation has the same and none is stored.
    """

    def __init__(self, secrets_in_use: Sequence[bytes]) -> None:
        self.stale = False
        self._keys: list[bytes] = []
        self.use(secrets_in_use)

    def use(self, secrets_in_use: Sequence[bytes]) -> None:
        """From now on these, the current one first. `stale`: names of live channels are under another one."""
        keys = [hmac.digest(secret, b"pairing-server code 1", "sha256") for secret in secrets_in_use]
        if self._keys and keys[0] != self._keys[0]:
            self.stale = True
        self._keys = keys

    def macs(self, code: str) -> list[bytes]:
        """The MACs this code may be stored under: current key first."""
        return [hmac.digest(key, code.encode(), hashlib.sha256) for key in self._keys]

    def draw(self, count: int) -> dict[bytes, tuple[str, Draw]]:
        """`count` random codes by their current MAC."""
        codes = [f"{secrets.randbelow(10**6):06d}" for _ in range(count)]
        return {macs[0]: (code, Draw(macs[0], tuple(macs))) for code in codes if (macs := self.macs(code))}

    @staticmethod
    def parse(text: str) -> str | None:
        """The code somebody typed, without the spaces and hyphens people put in; None if it is none."""
        code = text.replace(" ", "").replace("-", "")
        return code if _CODE.fullmatch(code) else None

    @staticmethod
    def channel(code: str) -> str:
        """The wire name of the code's channel."""
        return f"pair-{code}"

    @staticmethod
    def of_channel(name: str) -> str:
        """The code in a channel's wire name. Raises InvalidChannel."""
        found = _CHANNEL.fullmatch(name)
        if found is None:
            raise InvalidChannel(channel=name)
        return found[1]


@dataclass(slots=True)
class LiveCodes:
    """About how many pairings hold a name: counted by the timer, and each new code added in between.

    Counting 900,000 rows for each new code would make drawing slower the more there are. So the
    bound may be passed by what other servers draw between two counts.
    """

    count: int = 0
