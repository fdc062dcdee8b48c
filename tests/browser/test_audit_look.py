"""The page for reviewers, as axe-core and the eye see it: light and dark, large and small.

`pytest tests/browser/test_audit_look.py --screenshots FOLDER` puts the pictures into FOLDER.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import expect

from tests.browser.audit import Reviewer, visit
from tests.browser.looking import look
from tests.browser.pages import Visitors
from tests.devices import Site

Scene = Callable[[Reviewer], Awaitable[None]]


async def signing_in(reviewer: Reviewer) -> None:
    await reviewer.sign_out()


async def a_day(reviewer: Reviewer) -> None:
    await expect(reviewer.rows).to_have_count(100)


async def one_event(reviewer: Reviewer) -> None:
    await reviewer.search(event="pairing.*")
    await reviewer.rows.nth(3).get_by_role("button").click()
    await expect(reviewer.details.get_by_text(re.compile("in seal|not yet"))).to_be_visible()


async def a_story(reviewer: Reviewer) -> None:
    await reviewer.search(event="pairing.redeem")
    await reviewer.rows.first.get_by_role("button").click()
    await reviewer.details.get_by_role("button", name="This address’s story").click()
    await expect(reviewer.chip("address")).to_be_visible()


async def the_seals(reviewer: Reviewer) -> None:
    await reviewer.page.locator(".seals > summary").click()
    await expect(reviewer.page.get_by_text("Public key", exact=True)).to_be_visible()


async def nothing_found(reviewer: Reviewer) -> None:
    await reviewer.search(address="192.0.2.77")
    await expect(reviewer.rows).to_have_count(0)


async def a_wrong_filter(reviewer: Reviewer) -> None:
    await reviewer.search(event="auth.lokout")
    await expect(reviewer.problem).to_contain_text("did you mean")


SCENES: list[Scene] = [signing_in, a_day, one_event, a_story, the_seals, nothing_found, a_wrong_filter]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_nothing_is_a_barrier_and_nothing_sticks_out(
    visitors: Visitors, busy: Site, axe: str, scene: Scene, request: pytest.FixtureRequest
) -> None:
    visitors.expected.append("422")  # the browser tells of refused requests
    reviewer = await visit(visitors, busy)
    await scene(reviewer)
    folder = request.config.getoption("--screenshots", default=None)
    await look(reviewer.page, axe, f"audit-{scene.__name__}", folder)
