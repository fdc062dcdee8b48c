"""What the services work with, built once by the composition root, and who is asking them."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from pairing_server.errors import InvalidChannel
from pairing_server.relay.hub import Hub
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import Keyring
from pairing_server.security.limits import Rate, SlidingWindow
from pairing_server.security.passwords import Passwords
from pairing_server.security.tokens import Tokens
from pairing_server.services.alarm import Alarm
from pairing_server.services.attempts import Turns
from pairing_server.services.audit import AuditLog
from pairing_server.services.audit_following import Followers
from pairing_server.services.revoked import Revoked
from pairing_server.services.sealer import Sealer
from pairing_server.store.codes import Draw
from pairing_server.store.database import Database
from pairing_server.tracing import OFF, Traces

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


class SeenEnabled:
    """When each account was last seen not to be disabled, for the time that the database is away.

    Bounded: of more accounts than it holds, those seen longest ago are forgotten.
    """

    def __init__(self, *, kept: timedelta = timedelta(minutes=10), size: int = 20_000) -> None:
        self._kept = kept
        self._size = size
        self._seen: OrderedDict[str, datetime] = OrderedDict()

    def note(self, subject: str, now: datetime) -> None:
        self._seen[subject] = now
        self._seen.move_to_end(subject)
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)

    def forget(self, subject: str) -> None:
        self._seen.pop(subject, None)

    def lately(self, subject: str, now: datetime) -> bool:
        seen = self._seen.get(subject)
        return seen is not None and now - seen <= self._kept


@dataclass(frozen=True, slots=True)
class PairingRules:
    """Durations in seconds."""

    code_ttl: int = 300
    same_user: bool = True
    guests: bool = False
    codes_per_user: int = 3
    max_live_codes: int = 50_000
    code_rate: Rate = Rate(5, 300)
    code_rate_address: Rate = Rate(100, 300)
    alarm: Rate = Rate(50, 60)
    reconnect_grace: int = 300
    name_kept: int = 600
    public_url: str = "http://127.0.0.1:8089"


@dataclass(slots=True)
class Deps:
    """`reading` is the same database, for questions to the audit log: few connections, and more time.

    `rules` and `registration_open` change when the settings are read again, and nothing else does.
    """

    database: Database
    reading: Database
    audit: AuditLog
    sealer: Sealer
    hub: Hub
    tokens: Tokens
    revoked: Revoked
    passwords: Passwords
    keyring: Keyring
    codes: Codes
    rules: PairingRules
    live: LiveCodes
    alarm: Alarm
    turns: Turns
    enabled: SeenEnabled
    codes_by_user: SlidingWindow
    codes_by_address: SlidingWindow
    registration_open: bool = False
    single_use: bool = False
    keyfile: KeyFile | None = None
    followers: Followers = field(default_factory=Followers)
    traces: Traces = OFF


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, for the decision and for the audit log. `subject` None: nobody has logged in.

    `address` is the client's after the proxy rules, `address_key` what limits count it by.
    """

    subject: str | None = None
    login_id: str | None = None
    address: str | None = None
    address_key: str = ""
    request_id: UUID | None = None
    connection_id: UUID | None = None
    kind: str = "anonymous"
