"""Codes: the six digits of a pairing and its channel's name, and how many may be made. Making and redeeming them:
services/pairings.py."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from pairing_server.db.database import Database
from pairing_server.errors import InvalidChannel, RateLimited, Unavailable
from pairing_server.request_context import RequestContext
from pairing_server.security.limits import Rate, SlidingWindow
from pairing_server.services.rate_limits import KeyedLock
from pairing_server.services.rules import PairingRules
from pairing_server.store import expiry
from pairing_server.store.codes import Draw

CODE_DIGITS = 6
# Unicode's categories of what may stand between the digits: spaces, dashes, marks of the direction of writing; and
# what people take for one of them.
_SEPARATORS = frozenset({"Zs", "Pd", "Cf"})
_MORE_SEPARATORS = "\t\r\n\N{MINUS SIGN}"
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
        """The code in what was typed; None if it is not one.

        Digits count in every script and width; spaces, dashes and marks that cannot be seen do not. A keyboard or a
        copied text puts them there.
        """
        code = ""
        for character in unicodedata.normalize("NFKC", text):
            if unicodedata.category(character) in _SEPARATORS or character in _MORE_SEPARATORS:
                continue
            value = unicodedata.decimal(character, None)
            if value is None or len(code) == CODE_DIGITS:
                return None
            code += str(value)
        return code if len(code) == CODE_DIGITS else None

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


class CodeLimits:
    """How many codes may be made: live ones on all servers together, about, and on this server a user's and an address's.

    Counting 900,000 rows for each new code would make drawing slower the more there are. So `live` is counted by the
    scheduler, and each new code is added in between; what other servers draw between two counts may exceed the limit.
    """

    def __init__(
        self, database: Database, locks: KeyedLock, rules: PairingRules, *, per_user: Rate, per_address: Rate
    ) -> None:
        self._database = database
        self._locks = locks
        self._rules = rules
        self._by_user = SlidingWindow(per_user)
        self._by_address = SlidingWindow(per_address)
        # Pairings that hold a name.
        self.live = 0

    def change(self, *, per_user: Rate, per_address: Rate) -> None:
        """Have these rates from now on."""
        self._by_user.change(per_user)
        self._by_address.change(per_address)

    async def count_live(self) -> None:
        async with self._database.transaction() as conn:
            self.live = await expiry.count_live(conn)

    @asynccontextmanager
    async def making(self, context: RequestContext) -> AsyncIterator[None]:
        """One code at a time for each caller; it counts unless making it fails. Raises RateLimited, Unavailable."""
        if self.live >= self._rules.max_live_codes:
            raise Unavailable(
                "Too many codes are in use at the moment. Try again in a minute.", retry_after_s=30
            )
        now = context.now.timestamp()
        windows = [(self._by_address, context.address_key)]
        if context.subject is not None:
            windows.append((self._by_user, context.subject))
        async with self.one_at_a_time("codes", context):
            if wait := max(window.wait(key, now) for window, key in windows):
                raise RateLimited(
                    wait,
                    "You asked for too many codes. Use the code that you have, or try again later.",
                    limit="codes",
                )
            yield
            for window, key in windows:
                window.charge(key, now)

    def one_at_a_time(self, act: str, context: RequestContext) -> AbstractAsyncContextManager[None]:
        """The caller's lock for this kind of act. Raises Unavailable if too many wait for it."""
        return self._locks.of(f"{act} {context.subject or context.address_key}")
