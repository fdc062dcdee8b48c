"""Whatever two clients do, the settings must go quiet and end up equal. Drawn, not argued.

The simulation is two_clients.py; docs/decisions/0004 has the figures of longer runs.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.longer import LONGER, count
from tests.relay.settings.two_clients import (
    DEFAULTS,
    KEYS,
    KINDS,
    ODD_KINDS,
    OTHER,
    ROLES,
    Kind,
    Story,
    World,
    links,
)

# The same stories every time; new ones in a longer run.
drawn = settings(
    max_examples=count(150, 2000),
    deadline=None,
    derandomize=not LONGER,
    database=None,
    suppress_health_check=list(HealthCheck) if LONGER else [HealthCheck.too_slow],
)

VALUES = st.sampled_from([0, 2, 3, True, "nl", 1.5, {"a": [1, None]}])
GAPS = st.one_of(st.just(0.0), st.floats(0, 0.02), st.floats(0, 0.3), st.floats(0, 3), st.floats(0, 12))
EDITS = st.dictionaries(st.sampled_from(KEYS[:3]), VALUES, min_size=1, max_size=3)
SEEDS = st.integers(0, 2**32)


def defaults() -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from([DEFAULTS, {**DEFAULTS, "gain": 50, "vad": True}, {"gain": 0, "own": "x"}])


@st.composite
def stories(draw: st.DrawFn, kinds: dict[str, Kind], slowest: float, coming_and_going: bool = True) -> Story:
    """Up to twelve things that happen, at any distance: edits, toggling back, bursts, leaving, joining."""
    time = 0.0
    events: list[tuple[Any, ...]] = []
    late = draw(st.sampled_from([None, *ROLES])) if coming_and_going else None
    whats = ["edit", "edit", "edit", "edit", "burst", "resend", "stall"] + ["rejoin"] * coming_and_going
    if late:
        events.append((draw(st.floats(0, 6)), late, "join", True))
    for _ in range(draw(st.integers(1, 12))):
        time += draw(GAPS)
        role, what = draw(st.sampled_from(ROLES)), draw(st.sampled_from(whats))
        if what == "rejoin":
            back = time + draw(st.floats(0, 4))
            events += [(time, role, "leave"), (back, role, "join", draw(st.booleans()))]
            time = back
        elif what == "resend":
            events.append((time, role, "resend"))
        elif what == "stall":
            events.append((time, role, "stall", time + draw(st.floats(0, 4))))
        elif what == "burst":
            burst = draw(st.lists(EDITS, min_size=2, max_size=5))
            events += [(time + i * 0.001, role, "edit", edits) for i, edits in enumerate(burst)]
        else:
            events.append((time, role, "edit", draw(EDITS)))
    return Story(
        kinds=(draw(st.sampled_from(list(kinds.values()))), draw(st.sampled_from(list(kinds.values())))),
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


@drawn
@given(stories(ODD_KINDS, slowest=0.2))
def test_any_two_clients_end_up_equal_and_silent(story: Story) -> None:
    check(story)


@drawn
@given(stories(ODD_KINDS, slowest=5.0))
def test_links_slower_than_a_second_end_up_equal_and_silent_too(story: Story) -> None:
    check(story)


# Of a client that sends only what is new to it, an edit back cannot always be told from a late echo.
TOLD_APART = [KINDS[name] for name in KINDS if name not in ("subscriber", "narrow_seed")]


@st.composite
def spaced_stories(draw: st.DrawFn) -> Story:
    time = 0.0
    resending = draw(st.lists(st.sampled_from(ROLES), unique=True))
    events: list[tuple[Any, ...]] = [(0.5, role, "resend") for role in resending]
    for _ in range(draw(st.integers(1, 8))):
        time += draw(st.floats(2.01, 15))
        events.append((time, draw(st.sampled_from(ROLES)), "edit", draw(EDITS)))
    return Story(
        kinds=(draw(st.sampled_from(TOLD_APART)), draw(st.sampled_from(TOLD_APART))),
        events=events,
        latency=links(0.2, draw(SEEDS)),
        defaults=(draw(defaults()), draw(defaults())),
    )


@drawn
@given(spaced_stories())
def test_of_edits_two_seconds_apart_the_last_wins(story: Story) -> None:
    assert not check(story).lost_edits()


def eight_edits(seed: int, *, crossing: bool) -> list[tuple[Any, ...]]:
    """Spaced: up to 1.5 s apart. Crossing: both sides edit the same keys within 20 ms. No value comes twice."""
    generator, numbers, time = random.Random(seed), itertools.count(1), 0.0
    events: list[tuple[Any, ...]] = []
    for _ in range(8):
        time += generator.uniform(0, 0.3 if crossing else 1.5)
        role, key = generator.choice(ROLES), generator.choice(KEYS[:2] if crossing else KEYS)
        events.append((time, role, "edit", {key: next(numbers)}))
        if crossing and generator.random() < 0.5:
            meanwhile = time + generator.uniform(0, 0.02)
            events.append((meanwhile, OTHER[role], "edit", {key: next(numbers)}))
    return events


PAIRS = [
    ("seed", "seed"),
    ("seed", "quiet"),
    ("quiet", "quiet"),
    ("seed", "seed_python"),
    ("partial", "seed"),
    ("based", "based"),
    ("subscriber", "subscriber"),
]


@pytest.mark.parametrize("crossing", [False, True], ids=["spaced", "crossing"])
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_eight_edits_cost_few_messages_and_seldom_lose_the_last(
    pair: tuple[str, str], crossing: bool
) -> None:
    runs, lost, messages = 60, 0, 0
    for seed in range(runs):
        kinds = (KINDS[pair[0]], KINDS[pair[1]])
        world = check(Story(kinds, eight_edits(seed, crossing=crossing), links(0.2, seed)))
        messages += world.messages
        lost += bool(world.lost_edits())
    assert messages / runs < 30
    # Of edits that cross on one key, the last to be made is often not the last to come.
    assert lost / runs < (0.6 if crossing else 0.15)


@pytest.mark.parametrize("kind", ["seed", "quiet", "partial", "based", "subscriber"])
def test_a_slider_ends_where_the_finger_left_it(kind: str) -> None:
    for seed, slowest in enumerate([0.01, 0.1, 0.2, 0.5, 1.0]):
        before = [(-10.0, "desktop", "edit", {"vad": 1}), (-5.0, "desktop", "edit", {"vad": 0})]
        slide = [(i / 60, "desktop", "edit", {"gain": i}) for i in range(1, 121)]
        world = check(Story((KINDS[kind], KINDS["seed"]), before + slide, links(slowest, seed)))
        assert world.document.raw()["gain"] == b"120"
        assert world.messages < 300
