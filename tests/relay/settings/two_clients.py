"""Two clients of several kinds, their links, and the channel's part in a few lines: a simulation in seconds.

The links keep the order of messages, and draw the time that each takes.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pairing_server.relay.settings.document import SettingsDocument

OTHER = {"desktop": "mobile", "mobile": "desktop"}
ROLES = ("desktop", "mobile")
KEYS = ("gain", "vad", "lang", "chunk", "overlap")
DEFAULTS = dict.fromkeys(KEYS, 0)
TOO_MANY = 3000  # messages: more than any finite story here needs


def javascript(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def python(value: object) -> bytes:
    """Another language's serialiser: 3 comes back as 3.0, with spaces."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return b" " + json.dumps(value).encode()


@dataclass(frozen=True)
class Kind:
    """`sends`: the whole object, or only what has changed. `echoes`: again on whatever it receives."""

    sends: str = "whole"
    echoes: bool = False
    base_rev: str = ""  # "true": the rev it has; "stuck": the first it ever got, which is a client's bug
    serialise: Callable[[object], bytes] = javascript
    own_keys_only: bool = False  # drops what it has no setting for


KINDS = {
    "seed": Kind(echoes=True),
    "seed_python": Kind(echoes=True, serialise=python),
    "quiet": Kind(),
    "partial": Kind(sends="changes"),
    "based": Kind(base_rev="true"),
    "based_partial": Kind(sends="changes", base_rev="true"),
    "based_seed": Kind(echoes=True, base_rev="true"),
    "subscriber": Kind(sends="changes", echoes=True),  # sends what a message has changed in its store
    "narrow_seed": Kind(echoes=True, own_keys_only=True),
}
ODD_KINDS = KINDS | {"stuck_seed": Kind(echoes=True, base_rev="stuck"), "stuck": Kind(base_rev="stuck")}


@dataclass
class Client:
    kind: Kind
    state: dict[str, Any]
    rev: int | None = None
    first_rev: int | None = None
    online: bool = True
    life: int = 0  # of its socket: what was sent to or by an older one is lost

    def state_within(self, document: dict[str, Any]) -> dict[str, Any]:
        """What it holds of the document's keys; a key that it does not know of is no difference."""
        known = self.state if self.kind.own_keys_only else document
        return {key: self.state.get(key) for key in document if key in known}

    def message(self, before: dict[str, Any]) -> tuple[dict[str, bytes], int | None]:
        whole = self.kind.sends == "whole"
        sent = {key: value for key, value in self.state.items() if whole or before.get(key) != value}
        base = {"true": self.rev, "stuck": self.first_rev}.get(self.kind.base_rev)
        return {key: self.kind.serialise(value) for key, value in sent.items()}, base


@dataclass
class Story:
    """What happens: (time, role, what, …), `what` one of edit, leave, join; and how the links behave."""

    kinds: tuple[Kind, Kind]
    events: list[tuple[Any, ...]]
    latency: Callable[[], float]
    defaults: tuple[dict[str, Any], dict[str, Any]] = (DEFAULTS, DEFAULTS)
    late: str | None = None  # this role is not there at first


class World:
    def __init__(self, story: Story) -> None:
        self.document = SettingsDocument()
        self.clients = {
            role: Client(kind, dict(defaults), online=role != story.late)
            for role, kind, defaults in zip(ROLES, story.kinds, story.defaults, strict=True)
        }
        self.messages = 0
        self.last_edit: dict[str, Any] = {}
        self._latency = story.latency
        self._queue: list[tuple[float, int, str, tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._lanes: dict[tuple[str, str], float] = {}
        self._stalled: dict[str, tuple[dict[str, bytes], int] | None] = {}
        for event in story.events:
            self._at(event[0], event[2], event[1], *event[3:])

    def _at(self, time: float, what: str, *arguments: object) -> None:
        heapq.heappush(self._queue, (time, next(self._order), what, arguments))

    def _travel(self, now: float, lane: tuple[str, str], *message: object) -> None:
        """Links keep the order: a message is never faster than the one before it."""
        arrival = max(now + self._latency(), self._lanes.get(lane, 0.0) + 1e-6)
        self._lanes[lane] = arrival
        role = lane[1]
        self._at(arrival, lane[0], role, self.clients[role].life, *message)

    def run(self) -> None:
        while self._queue:
            now, _, what, arguments = heapq.heappop(self._queue)
            assert self.messages < TOO_MANY, "it does not go quiet"
            getattr(self, what)(now, *arguments)

    # The clients.

    def edit(self, now: float, role: str, edits: dict[str, Any]) -> None:
        client = self.clients[role]
        before = dict(client.state)
        news = {key: value for key, value in edits.items() if before.get(key) != value}
        client.state.update(news)
        if client.online and news:
            self.last_edit.update(news)
            self._send(now, role, before)

    def resend(self, now: float, role: str) -> None:
        """The client's own timer, or its reaction to having joined: everything again, edited or not."""
        if self.clients[role].online:
            self._send(now, role, {})

    def _send(self, now: float, role: str, before: dict[str, Any]) -> None:
        message, base = self.clients[role].message(before)
        if message:
            self.messages += 1
            self._travel(now, ("up", role), message, base)

    def down(self, now: float, role: str, life: int, document: dict[str, bytes], rev: int) -> None:
        client = self.clients[role]
        if life != client.life:
            return
        before = dict(client.state)
        narrow = client.kind.own_keys_only
        received = {key: raw for key, raw in document.items() if key in client.state or not narrow}
        client.state.update({key: json.loads(raw) for key, raw in received.items()})
        client.rev = rev
        client.first_rev = rev if client.first_rev is None else client.first_rev
        if client.kind.echoes:
            self._send(now, role, before)

    def leave(self, now: float, role: str) -> None:
        self.clients[role].online = False
        self.clients[role].life += 1

    def join(self, now: float, role: str, restarted: bool) -> None:
        client = self.clients[role]
        client.life += 1
        client.online = True
        self._stalled.pop(role, None)
        if restarted:
            client.state, client.rev, client.first_rev = dict(DEFAULTS), None, None
        self.document.note_reconnect(role)
        if self.document.rev:
            self._deliver(now, role)

    # The channel.

    def up(self, now: float, role: str, life: int, message: dict[str, bytes], base: int | None) -> None:
        if life != self.clients[role].life:
            return
        rev = self.document.rev
        merge = self.document.merge(role, message, now, base)
        assert self.document.rev == rev + (merge is not None)
        if merge is not None and self.clients[OTHER[role]].online:
            self._deliver(now, OTHER[role])
        self._schedule()

    def _deliver(self, now: float, role: str) -> None:
        self.document.note_delivery(role, now)
        if role in self._stalled:
            self._stalled[role] = (self.document.raw(), self.document.rev)
        else:
            self._travel(now, ("down", role), self.document.raw(), self.document.rev)

    def stall(self, now: float, role: str, until: float) -> None:
        """The member reads slowly: of the documents that wait for it only the newest is kept."""
        self._stalled.setdefault(role, None)
        self._at(until, "flush", role)

    def flush(self, now: float, role: str) -> None:
        if waiting := self._stalled.pop(role, None):
            self._travel(now, ("down", role), *waiting)

    def _schedule(self) -> None:
        if self.document.settle_at is not None:
            self._at(self.document.settle_at, "settle")

    def settle(self, now: float) -> None:
        for role in self.document.settle(now):
            if self.clients[role].online:
                self._deliver(now, role)

    def outcomes(self) -> list[str]:
        """The document, and what each client that is there holds of it, as JavaScript would write it."""
        document = {key: json.loads(raw) for key, raw in self.document.raw().items()}
        held = [client for client in self.clients.values() if client.online]
        return [plain(document), *(plain(document | client.state_within(document)) for client in held)]

    def lost_edits(self) -> list[str]:
        """The keys in which the document has not what a user has set last."""
        document = {key: json.loads(raw) for key, raw in self.document.raw().items()}
        edited = document.keys() & self.last_edit.keys()
        return [key for key in edited if plain(document[key]) != plain(self.last_edit[key])]


def plain(value: object) -> str:
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


def links(slowest: float, seed: int) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: generator.uniform(0.005, slowest)
