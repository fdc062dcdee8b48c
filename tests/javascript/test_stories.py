"""A story that fails fails its own test alone, although all stories share a Node.js process."""

from __future__ import annotations

import pytest

from tests.javascript.conftest import Stories


async def nothing(what: str) -> None:
    pass


async def refused(what: str) -> None:
    raise AssertionError(f"a story asks for {what}")


@pytest.mark.parametrize(
    ("story", "error"),
    [
        ("it_fails_and_leaves_things_changed", "not equal"),
        ("it_throws_where_nobody_waits", "thrown later"),
        ("it_waits_for_what_never_comes", "ended too early"),
        ("it_asks_for_what_cannot_be_done", "a story asks for fly"),
        ("there_is_no_such_story", "is not a function"),
    ],
)
async def test_the_next_story_is_told_as_if_it_were_the_first(
    node_js: Stories, story: str, error: str
) -> None:
    with pytest.raises(AssertionError, match=error):
        await node_js.tell("failing.mjs", story, {}, refused)
    await node_js.tell("failing.mjs", "it_passes", {}, nothing)
