"""The audit events of an installation over months, as lines for COPY: the same for the same seed.

Most are of devices that pair and send messages. Beside these people mistype, addresses guess, a few accounts are programs,
and rarely there is an event that a reviewer looks for. The lines are in the order of time, as a server writes them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import NamedTuple
from uuid import UUID

_COLUMNS = (
    "recorded_at occurred_at event_id event severity outcome reason node app_version"
    " actor_subject actor_kind auth_method address request_id connection_id pairing_id count attrs"
)
COLUMNS = tuple(_COLUMNS.split())
USERS = 20_000
PROGRAMS = 20  # accounts with a tenth of all events
ATTACKERS = 60
# One attack is this many guesses, from one address in an hour.
GUESSES = 400
_NULL = "\\N"


class Actor(NamedTuple):
    """The account and the address of some events, and what they are about. `devices`: connection by type."""

    subject: str | None
    address: str
    pairing: str = ""
    devices: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Step:
    """One event, `after` seconds from the begin. `device` None: over HTTP."""

    after: float
    event: str
    severity: int
    outcome: str
    device: str | None = None
    paired: bool = True
    reason: str | None = None
    attrs: str = "{}"


_PAIRING = (
    Step(0, "auth.login", 6, "success", paired=False),
    Step(
        0.1, "auth.token_issued", 6, "success", paired=False, attrs='{"kind": "access", "expires_in": 3600}'
    ),
    Step(1, "session.bound", 6, "success", paired=False, attrs='{"device_type": "desktop"}'),
    Step(1, "pairing.code_created", 6, "success", attrs='{"desktop_session": "desktop-session-1"}'),
    Step(
        2, "auth.token_issued", 6, "success", paired=False, attrs='{"kind": "ws", "device_type": "desktop"}'
    ),
    Step(3, "ws.connected", 6, "success", "desktop", paired=False, attrs='{"token_via": "query"}'),
    Step(4, "channel.joined", 6, "success", "desktop", attrs='{"device_type": "desktop"}'),
    Step(20, "session.bound", 6, "success", paired=False, attrs='{"device_type": "mobile"}'),
    Step(20, "pairing.redeem", 6, "success", attrs='{"mobile_session": "mobile-session-1"}'),
    Step(
        21, "auth.token_issued", 6, "success", paired=False, attrs='{"kind": "ws", "device_type": "mobile"}'
    ),
    Step(22, "ws.connected", 6, "success", "mobile", paired=False, attrs='{"token_via": "query"}'),
    Step(23, "channel.joined", 6, "success", "mobile", attrs='{"device_type": "mobile"}'),
    Step(200, "channel.left", 6, "success", "mobile"),
    Step(201, "ws.disconnected", 6, "success", "mobile", attrs='{"close_code": 1000, "duration_s": 179}'),
    Step(202, "channel.left", 6, "success", "desktop"),
    Step(203, "ws.disconnected", 6, "success", "desktop", attrs='{"close_code": 1001, "duration_s": 200}'),
    Step(204, "pairing.closed", 6, "success", reason="user"),
)
_MISTYPED = (
    Step(0, "pairing.redeem", 4, "failure", paired=False, reason="no_such_code"),
    Step(30, "auth.login", 4, "failure", paired=False, reason="password"),
)
# What is added to one pairing in so many.
_RARE = (
    (8, _MISTYPED),
    (60, (Step(5, "limit.rate", 4, "denied", "mobile", reason="message"),)),
    (90, (Step(6, "msg.invalid", 4, "failure", "desktop", reason="schema"),)),
    (300, (Step(7, "channel.denied", 4, "denied", "mobile", reason="full"),)),
    (500, (Step(2, "ws.rejected", 4, "denied", paired=False, reason="origin"),)),
    (900, (Step(3, "account.password_changed", 5, "success", paired=False),)),
    (
        3_000,
        (
            Step(
                9,
                "session.hijack_attempt",
                2,
                "denied",
                "mobile",
                attrs='{"session_id": "desktop-session-1"}',
            ),
        ),
    ),
    (20_000, (Step(1, "system.error", 3, "error", paired=False, attrs='{"where": "prune"}'),)),
)


class EventGenerator:
    """`rows` lines over `days` days up to `end`."""

    def __init__(self, rows: int, days: int, end: datetime, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self.rows = rows
        self._end = end
        self.begin = end - timedelta(days=days)
        self.users = [self._uuid() for _ in range(USERS)]
        self.programs = [f"service-{number}" for number in range(PROGRAMS)]
        self.addresses = [f"10.{n >> 8 & 255}.{n & 255}.{n % 199 + 1}" for n in range(USERS)]
        self.attackers = [f"198.51.{n % 100}.{n * 7 % 250 + 1}" for n in range(ATTACKERS)]

    def _uuid(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def lines(self) -> Iterator[str]:
        """The lines, each with its end."""
        # How many pairings come to that many rows, beside the attacks.
        each = len(_PAIRING) + sum(len(steps) / one_in for one_in, steps in _RARE)
        attackers = self.attackers[: max(1, self.rows // 100_000)]
        about = max(1, round((self.rows - len(attackers) * (GUESSES + GUESSES // 50)) / each))
        span = (self._end - self.begin).total_seconds()
        attacks = {self._random.randrange(about): address for address in attackers}
        made = 0
        for number in count():
            at = self.begin + timedelta(seconds=span * min(1.0, number / about))
            steps = self._attack(attacks[number], at) if number in attacks else self._pairing(at)
            for line in steps:
                yield line
                made += 1
                if made == self.rows:
                    return

    def _pairing(self, at: datetime) -> Iterator[str]:
        draw = self._random.random
        if draw() < 0.1:
            subject, address = self._random.choice(self.programs), "192.0.2.10"
        else:
            # Some people pair often, most seldom.
            who = int(USERS * draw() ** 1.5)
            subject, address = self.users[who], self.addresses[who if draw() < 0.9 else int(USERS * draw())]
        steps: list[Step] = list(_PAIRING)
        for one_in, rare in _RARE:
            if draw() * one_in < 1:
                steps += rare
        actor = Actor(subject, address, self._uuid(), {"desktop": self._uuid(), "mobile": self._uuid()})
        for step in steps:
            yield self._line(at, step, actor)

    def _attack(self, address: str, at: datetime) -> Iterator[str]:
        actor = Actor(None, address)
        for number in range(GUESSES):
            event, reason = (("auth.login", "password"), ("pairing.redeem", "no_such_code"))[number % 2]
            after = number * 9
            yield self._line(at, Step(after, event, 4, "failure", paired=False, reason=reason), actor)
            if number % 50 == 49:
                attrs = '{"scope": "redeem_address"}'
                yield self._line(
                    at, Step(after, "auth.lockout", 4, "denied", paired=False, attrs=attrs), actor
                )

    def _line(self, began: datetime, step: Step, actor: Actor) -> str:
        at = min(began + timedelta(seconds=step.after), self._end).astimezone(UTC).isoformat()
        device = actor.devices.get(step.device or "")
        kind = "anonymous" if actor.subject is None else "device" if device else "user"
        method = "password" if step.event == "auth.login" and step.outcome == "success" else _NULL
        fields = (
            *(at, at, self._uuid(), step.event, str(step.severity), step.outcome, step.reason or _NULL),
            *("node-1", "0.1.0", actor.subject or _NULL, kind, method, actor.address),
            *(_NULL if device else self._uuid(), device or _NULL),
            *(actor.pairing if step.paired and actor.pairing else _NULL, "1", step.attrs),
        )
        return "\t".join(fields) + "\n"
