"""Whatever two clients do, the settings must go quiet and end up equal. Drawn, not argued.

A small discrete-event simulation: two clients of several kinds, links that keep the order but draw the time of
every message, and the channel's part in fifteen lines. Times are seconds.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pairing_server.relay.settings import SettingsDocument

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


KINDS = {
    "seed": Kind(echoes=True),
    "seed_python": Kind(echoes=True, serialise=python),
    "quiet": Kind(),
    "partial": Kind(sends="changes"),
    "based": Kind(base_rev="true"),
    "based_partial": Kind(sends="changes", base_rev="true"),
    "based_seed": Kind(echoes=True, base_rev="true"),
    "subscriber": Kind(sends="changes", echoes=True),  # sends what a message has changed in its store
}
ODD_KINDS = KINDS | {"stuck_seed": Kind(echoes=True, base_rev="stuck"), "stuck": Kind(base_rev="stuck")}


@dataclass
class Client:
    kind: Kind
    state: dict[str, object]
    rev: int | None = None
    first_rev: int | None = None
    online: bool = True
    life: int = 0  # of its socket: what was sent to or by an older one is lost

    def message(self, before: dict[str, object]) -> tuple[dict[str, bytes], int | None]:
        whole = self.kind.sends == "whole"
        sent = {key: value for key, value in self.state.items() if whole or before.get(key) != value}
        base = {"true": self.rev, "stuck": self.first_rev}.get(self.kind.base_rev)
        return {key: self.kind.serialise(value) for key, value in sent.items()}, base


@dataclass
class Story:
    """What happens: (time, role, what, …), `what` one of edit, leave, join; and how the links behave."""

    kinds: tuple[Kind, Kind]
    events: list[tuple]
    latency: Callable[[], float]
    defaults: tuple[dict[str, object], dict[str, object]] = (DEFAULTS, DEFAULTS)
    late: str | None = None  # this role is not there at first


class World:
    def __init__(self, story: Story) -> None:
        self.document = SettingsDocument()
        self.clients = {
            role: Client(kind, dict(defaults), online=role != story.late)
            for role, kind, defaults in zip(ROLES, story.kinds, story.defaults, strict=True)
        }
        self.messages = 0
        self.last_edit: dict[str, object] = {}
        self._latency = story.latency
        self._queue: list[tuple] = []
        self._order = itertools.count()
        self._lanes: dict[tuple[str, str], float] = {}
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

    def edit(self, now: float, role: str, edits: dict[str, object]) -> None:
        client = self.clients[role]
        before = dict(client.state)
        client.state.update(edits)
        if client.online:
            self.last_edit.update({key: value for key, value in edits.items() if before.get(key) != value})
            self._send(now, role, before)

    def _send(self, now: float, role: str, before: dict[str, object]) -> None:
        message, base = self.clients[role].message(before)
        if message:
            self.messages += 1
            self._travel(now, ("up", role), message, base)

    def down(self, now: float, role: str, life: int, document: dict[str, bytes], rev: int) -> None:
        client = self.clients[role]
        if life != client.life:
            return
        before = dict(client.state)
        client.state.update({key: json.loads(raw) for key, raw in document.items()})
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
        if restarted:
            client.state, client.rev, client.first_rev = dict(DEFAULTS), None, None
        self.document.forget(role)
        if self.document.rev:
            self._deliver(now, role)

    # The channel.

    def up(self, now: float, role: str, life: int, message: dict[str, bytes], base: int | None) -> None:
        if life != self.clients[role].life:
            return
        rev = self.document.rev
        merge = self.document.sync(role, message, now, base)
        assert self.document.rev == rev + (merge is not None)
        if merge is not None and self.clients[OTHER[role]].online:
            self._deliver(now, OTHER[role])
        self._schedule()

    def _deliver(self, now: float, role: str) -> None:
        self.document.delivered(role, now)
        self._travel(now, ("down", role), self.document.raw(), self.document.rev)

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
        held = [client.state for client in self.clients.values() if client.online]
        return [plain(document), *(plain({key: state.get(key) for key in document}) for state in held)]


def plain(value: object) -> str:
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


def links(slowest: float, seed: int) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: generator.uniform(0.005, slowest)


VALUES = st.sampled_from([0, 2, 3, True, "nl", 1.5, {"a": [1, None]}])
GAPS = st.one_of(st.just(0.0), st.floats(0, 0.02), st.floats(0, 0.3), st.floats(0, 3), st.floats(0, 12))
EDITS = st.dictionaries(st.sampled_from(KEYS[:3]), VALUES, min_size=1, max_size=3)
SEEDS = st.integers(0, 2**32)


def defaults() -> st.SearchStrategy[dict[str, object]]:
    return st.sampled_from([DEFAULTS, {**DEFAULTS, "gain": 50, "vad": True}, {"gain": 0, "own": "x"}])


@st.composite
def stories(draw: st.DrawFn, kinds: dict[str, Kind], slowest: float, coming_and_going: bool = True) -> Story:
    """Up to twelve things that happen, at any distance: edits, toggling back, bursts, leaving, joining."""
    time, events = 0.0, []
    late = draw(st.sampled_from([None, *ROLES])) if coming_and_going else None
    whats = ["edit", "edit", "edit", "burst"] + ["rejoin"] * coming_and_going
    if late:
        events.append((draw(st.floats(0, 6)), late, "join", True))
    for _ in range(draw(st.integers(1, 12))):
        time += draw(GAPS)
        role, what = draw(st.sampled_from(ROLES)), draw(st.sampled_from(whats))
        if what == "rejoin":
            back = time + draw(st.floats(0, 4))
            events += [(time, role, "leave"), (back, role, "join", draw(st.booleans()))]
            time = back
        elif what == "burst":
            burst = draw(st.lists(EDITS, min_size=2, max_size=5))
            events += [(time + i * 0.001, role, "edit", edits) for i, edits in enumerate(burst)]
        else:
            events.append((time, role, "edit", draw(EDITS)))
    return Story(
        kinds=tuple(kinds[draw(st.sampled_from(sorted(kinds)))] for _ in ROLES),
        events=events,
        latency=links(slowest, draw(SEEDS)),
        defaults=(draw(defaults()), draw(defaults())),
        late=late,
    )


def check(story: Story) -> World:
    world = World(story)
    world.run()
    outcomes = world.outcomes()
    assert len(set(outcomes)) == 1, outcomes
    return world


@given(stories(ODD_KINDS, slowest=0.2))
def test_any_two_clients_end_up_equal_and_silent(story: Story) -> None:
    check(story)


@given(stories(ODD_KINDS, slowest=5.0))
def test_links_slower_than_a_second_end_up_equal_and_silent_too(story: Story) -> None:
    check(story)


@st.composite
def spaced_stories(draw: st.DrawFn) -> Story:
    time, events = 0.0, []
    for _ in range(draw(st.integers(1, 8))):
        time += draw(st.floats(2.01, 15))
        events.append((time, draw(st.sampled_from(ROLES)), "edit", draw(EDITS)))
    return Story(
        kinds=tuple(KINDS[draw(st.sampled_from(sorted(KINDS)))] for _ in ROLES),
        events=events,
        latency=links(0.2, draw(SEEDS)),
        defaults=(draw(defaults()), draw(defaults())),
    )


@given(spaced_stories())
def test_of_edits_two_seconds_apart_the_last_wins(story: Story) -> None:
    world = check(story)
    document = {key: json.loads(raw) for key, raw in world.document.raw().items()}
    for key, value in world.last_edit.items():
        if key in document:
            assert plain(document[key]) == plain(value), key
