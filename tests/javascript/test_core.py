"""The client's core under Node.js, each story with an account of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pairing_server.config import Configuration
from pairing_server.security.limits import Rate
from tests.conftest import CONFIGURATION, StartNode
from tests.devices import Site
from tests.javascript.conftest import Tell, stories
from tests.protocol import code, table

ATTACKED = {"redeem_policy": "any_user", "redeem_alarm": Rate(1, 60)}
# How fast a client sends is its own affair: a server that was held up for a moment counts a burst where there was none.
PATIENT: dict[str, Any] = {"message_rate": 10_000, "message_burst": 10_000, "frame_rate": 10_000}
# The stories that have a server of their own, which does its jobs as in life, and what else it is like.
SERVERS: dict[str, dict[str, Any]] = {
    "what_has_no_ack_counts_against_the_rate_however_long_that_takes": {
        "message_rate": 60,
        "message_burst": 120,
    },
    "a_stricter_server_gets_all_the_same": {"message_rate": 20, "message_burst": 20},
    "whom_the_server_has_no_room_for_is_told": {"connections_per_user": 1},
    "a_token_is_refreshed_before_it_expires": {"ws_token_ttl": 61},
    "a_code_that_expires_closes_the_desktop": {"code_ttl": 1},
    "while_the_server_is_attacked_the_desktop_is_asked": ATTACKED,
    "who_is_not_wanted_by_the_desktop_stays_out": ATTACKED,
    "the_server_restarts_and_nothing_that_was_said_meanwhile_is_lost": {},
    "a_message_that_was_taken_before_the_restart_does_not_come_twice_after_it": {},
}


@pytest.fixture(scope="module")
def module_configuration() -> Configuration:
    return replace(CONFIGURATION, **PATIENT)


@pytest.fixture
def server(request: pytest.FixtureRequest, story: str) -> Site:
    if story in SERVERS:
        start_node: StartNode = request.getfixturevalue("start_node")
        return start_node(timers=True, **{**PATIENT, **SERVERS[story]})
    site: Site = request.getfixturevalue("site")
    return site


def told() -> list[Any]:
    shared = pytest.mark.one_node
    return [
        pytest.param(story, marks=[] if story in SERVERS else shared, id=story)
        for story in stories("core.mjs")
    ]


@pytest.mark.parametrize("story", told())
async def test_the_core(server: Site, tell: Tell, story: str) -> None:
    other = await server.account()
    # The one that ends the pairing comes last.
    codes = sorted(
        ((int(code(row["code"])), row["what the client does"]) for row in table("close-codes")),
        key=lambda each: each[1] == "pair again",
    )
    await tell(server, "core.mjs", story, other=other.token, codes=codes)
