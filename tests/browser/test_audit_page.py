"""The page for reviewers in a real browser: signing in, asking, zooming, stories, what comes live, export."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext, system
from tests.browser.audit import NAME, PASSWORD, Reviewer, visit
from tests.browser.pages import Visitors
from tests.devices import Site


async def total(reviewer: Reviewer) -> int:
    """How many events the timeline says there are, once the question is answered."""
    await reviewer.settled()
    span = reviewer.page.locator(".head .span")
    await expect(span).to_contain_text("events")
    found = re.search(r"([\d,]+) events", await span.inner_text())
    assert found is not None
    return int(found[1].replace(",", ""))


async def record(site: Site, name: str, **caller: str) -> None:
    async with site.node.database.transaction() as conn:
        event = site.node.audit.event(
            name, "success", RequestContext(utcnow(), kind="user", **caller).at(utcnow())
        )
        await site.node.audit.record(conn, event)


# Signing in


async def test_a_reviewer_signs_in_sees_the_last_day_and_signs_out(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    await expect(reviewer.page.get_by_text("24 hours")).to_be_visible()
    await expect(reviewer.rows).to_have_count(100)
    assert await total(reviewer) > 250
    await reviewer.sign_out()
    await expect(reviewer.rows).to_have_count(0)
    assert [event["actor"] for event in await busy.events("auth.logout")]


async def test_a_user_without_the_role_gets_an_alert_and_no_rows(visitors: Visitors, busy: Site) -> None:
    visitors.expected.append("403")  # the browser tells of refused requests
    await busy.node.services.accounts.set_role(system(utcnow()), NAME, "user")
    reviewer = Reviewer(await visitors.visit(f"{busy.url}/audit"))
    await reviewer.log_in()
    await expect(reviewer.page.get_by_role("alert")).to_contain_text("an auditor or an admin")
    await expect(reviewer.rows).to_have_count(0)


async def test_a_wrong_password_is_told_and_may_be_mended(visitors: Visitors, busy: Site) -> None:
    visitors.expected.append("401")
    reviewer = Reviewer(await visitors.visit(f"{busy.url}/audit"))
    await reviewer.log_in(password="a wrong long password")
    await expect(reviewer.page.get_by_role("alert")).to_contain_text("wrong")
    await expect(reviewer.page.get_by_label("Password")).to_be_focused()
    await reviewer.log_in()
    await expect(reviewer.rows.first).to_be_visible()


async def test_the_token_is_in_memory_only(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    kept = await reviewer.page.evaluate(
        "() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href])"
    )
    assert json.loads(kept) == [{}, {}, "", f"{busy.url}/audit"]
    await reviewer.page.reload()
    await expect(reviewer.page.get_by_label("Username")).to_be_visible()


async def test_a_login_that_has_ended_is_asked_for_again_and_the_question_is_kept(
    visitors: Visitors, busy: Site
) -> None:
    visitors.expected.append("401|403")
    reviewer = await visit(visitors, busy, "/audit#event=auth.*&since=7d")
    await busy.node.services.logins.revoke_user(system(utcnow()), NAME)
    await reviewer.search(event="pairing.*")
    await expect(reviewer.page.get_by_text("Your login has ended")).to_be_visible()
    await reviewer.page.get_by_label("Password").fill(PASSWORD)
    await reviewer.page.get_by_role("button", name="Log in").click()
    await expect(reviewer.rows.first.get_by_role("button")).to_have_text(re.compile(r"pairing\."))


async def test_a_late_answer_to_a_login_that_has_ended_does_not_end_the_next_one(
    visitors: Visitors, busy: Site
) -> None:
    visitors.expected.append("401")
    reviewer = await visit(visitors, busy)
    held: asyncio.Queue[Route] = asyncio.Queue()
    await reviewer.page.route(re.compile("/api/audit/events/"), held.put)
    await reviewer.rows.first.get_by_role("button").click()
    late = await held.get()
    await busy.node.services.logins.revoke_user(system(utcnow()), NAME)
    await reviewer.page.keyboard.press("Escape")
    await reviewer.search(event="pairing.*")
    await expect(reviewer.page.get_by_text("Your login has ended")).to_be_visible()
    await reviewer.log_in()
    await expect(reviewer.rows.first).to_be_visible()
    async with reviewer.page.expect_response(re.compile("/api/audit/events/")) as answer:
        await late.continue_()
    assert (await answer.value).status == 401
    await reviewer.settled()
    await expect(reviewer.rows.first).to_be_visible()


# Asking


async def test_filters_narrow_the_table_and_the_timeline_and_come_off_again(
    visitors: Visitors, busy: Site
) -> None:
    reviewer = await visit(visitors, busy)
    everything = await total(reviewer)
    await reviewer.search(event="pairing.redeem", address="203.0.113.0/24")
    await expect(reviewer.rows).to_have_count(9)
    await expect(reviewer.rows.first).to_contain_text("no_such_code")
    assert await total(reviewer) == 9
    await reviewer.page.get_by_role("button", name="Remove address 203.0.113.0/24").click()
    await expect(reviewer.rows).to_have_count(31)
    await reviewer.page.get_by_label("Outcome").select_option("success")
    await expect(reviewer.rows).to_have_count(22)
    await reviewer.page.get_by_role("button", name="Clear all").click()
    await expect(reviewer.chip("event")).to_have_count(0)
    assert await total(reviewer) >= everything


async def test_the_page_is_busy_until_list_and_timeline_are_both_there(
    visitors: Visitors, busy: Site
) -> None:
    reviewer = await visit(visitors, busy)
    go_on = asyncio.Event()

    async def hold(route: Route) -> None:
        await go_on.wait()
        await route.continue_()

    await reviewer.page.route(re.compile("/api/audit/timeline"), hold)
    await reviewer.search(event="auth.lockout")
    await expect(reviewer.rows).to_have_count(2)
    page = reviewer.page.locator(".page")
    await expect(page).to_have_attribute("aria-busy", "true")
    go_on.set()
    await expect(page).not_to_have_attribute("aria-busy", "true")
    assert await total(reviewer) == 2


async def test_a_user_is_asked_for_by_name(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    await reviewer.search(user="ada", event="auth.login")
    await expect(reviewer.chip("user")).to_be_visible()
    await reviewer.settled()
    assert set(await reviewer.page.locator(".who-cell").all_inner_texts()) == {"ada"}


async def test_the_question_is_in_the_address_and_back_goes_back(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy, "/audit#event=auth.lockout&since=7d")
    await expect(reviewer.rows).to_have_count(2)
    await reviewer.search(event="session.hijack_attempt")
    await expect(reviewer.rows).to_have_count(1)
    await reviewer.page.go_back()
    await expect(reviewer.rows).to_have_count(2)
    await expect(reviewer.page.locator("#f-event")).to_have_value("auth.lockout")


async def test_a_filter_that_is_none_is_explained(visitors: Visitors, busy: Site) -> None:
    visitors.expected.append("422")
    reviewer = await visit(visitors, busy)
    await reviewer.search(event="auth.lokout")
    await expect(reviewer.problem).to_contain_text("did you mean auth.lockout")
    await reviewer.search(event="auth.lockout")
    await expect(reviewer.rows).to_have_count(2)
    await expect(reviewer.problem).to_be_empty()


async def test_older_events_follow_on_demand_and_none_is_there_twice(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    await reviewer.page.get_by_role("button", name="Show older events").click()
    await expect(reviewer.rows).to_have_count(200)
    await reviewer.page.get_by_role("button", name="Show older events").click()
    await expect(reviewer.page.get_by_role("button", name="Show older events")).to_be_hidden()
    texts = await reviewer.page.locator(".scroll td.time").all_inner_texts()
    assert texts == sorted(texts, reverse=True)


# The timeline


async def test_dragging_over_the_timeline_zooms_in_and_back_zooms_out(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    before = await total(reviewer)
    box = await reviewer.chart.bounding_box()
    assert box is not None
    await reviewer.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 60)
    await reviewer.page.mouse.down()
    await reviewer.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=5)
    await reviewer.page.mouse.up()
    await expect(reviewer.page).to_have_url(re.compile(r"since=2\d{3}-.*until=2\d{3}-"))
    assert 0 < await total(reviewer) < before
    await reviewer.page.go_back()
    await expect(reviewer.page).not_to_have_url(re.compile("until="))


async def test_the_timeline_is_read_and_zoomed_by_keys_alone(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    said = reviewer.page.locator("[role=status]", has_text=re.compile(" to .*: "))
    await reviewer.chart.focus()
    await reviewer.page.keyboard.press("End")
    await expect(said).to_have_text(re.compile("success|nothing"))
    first = await said.inner_text()
    await reviewer.page.keyboard.press("PageUp")
    await expect(said).not_to_have_text(first)
    for _ in range(3):
        await reviewer.page.keyboard.press("Shift+ArrowLeft")
    await reviewer.page.keyboard.press("Enter")
    await expect(reviewer.page).to_have_url(re.compile("until="))


async def test_the_legend_counts_each_outcome_and_narrows_to_it(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    await expect(reviewer.page.get_by_role("button", name="error 1")).to_be_visible()
    await reviewer.page.get_by_role("button", name="failure 23").click()
    await expect(reviewer.rows).to_have_count(23)
    await expect(reviewer.chip("outcome")).to_be_visible()


# One event and its stories


async def test_the_story_of_a_pairing_is_one_click_from_its_event(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    await reviewer.search(event="channel.joined")
    await reviewer.rows.first.get_by_role("button").click()
    facts = reviewer.details.locator("dl")
    await expect(facts).to_contain_text(re.compile(r"in seal \d+ of"))
    pairing = await facts.locator("dt", has_text=re.compile("^Pairing$")).locator("+ dd").inner_text()
    await reviewer.details.get_by_role("button", name="This pairing’s story").click()
    await expect(reviewer.details).to_be_hidden()
    await expect(reviewer.chip("pairing")).to_contain_text(pairing)
    await expect(reviewer.chip("event")).to_have_count(0)
    await reviewer.settled()
    events = set(await reviewer.page.locator(".event").all_inner_texts())
    assert {"pairing.code_created", "channel.joined"} <= events


async def test_the_story_of_an_address_is_one_click_from_its_event(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    await reviewer.search(event="auth.lockout")
    await reviewer.rows.first.get_by_role("button").click()
    await reviewer.details.get_by_role("button", name="This address’s story").click()
    await expect(reviewer.rows).to_have_count(30)
    assert set(await reviewer.page.locator(".scroll td.mono").all_inner_texts()) == {"203.0.113.66"}


async def test_the_details_open_and_close_by_keys_alone(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    event = reviewer.rows.first.get_by_role("button")
    await event.focus()
    await reviewer.page.keyboard.press("Enter")
    await expect(reviewer.details).to_be_visible()
    await reviewer.page.keyboard.press("Escape")
    await expect(reviewer.details).to_be_hidden()
    await expect(event).to_be_focused()


async def test_what_a_client_has_chosen_is_text_and_never_markup(visitors: Visitors, busy: Site) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    async with busy.node.database.transaction() as conn:
        made = busy.node.audit.event(
            "ws.connected",
            "success",
            RequestContext(utcnow(), subject=f"{nasty}\u202e\x9b").at(utcnow()),
            reason=nasty,
            origin=nasty,
        )
        await busy.node.audit.record(conn, made)
    reviewer = await visit(visitors, busy, "/audit#event=ws.connected&since=24h")
    await expect(reviewer.rows.first).to_contain_text(rf"{nasty}\u202e\u009b")
    await reviewer.rows.first.get_by_role("button").click()
    await expect(reviewer.details.locator("dl")).to_contain_text(nasty)
    assert await reviewer.page.locator("img[src=x]").count() == 0


# Live, seals, export


async def test_new_events_appear_at_the_top_while_live_is_on(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy, "/audit#event=auth.login,session.bound&since=24h")
    before = await reviewer.rows.count()
    live = reviewer.page.get_by_role("switch", name="Live")
    async with reviewer.page.expect_response(re.compile("/api/audit/follow")):
        await live.check()
    tail = busy.node.services.audit.tail
    while not tail.waiting:
        await busy.get("/healthz")
    [waiter] = tail.waiting
    await record(busy, "session.bound", address="203.0.113.200")
    await record(busy, "ws.connected", address="203.0.113.201")
    # An event is final once no transaction before it is open, on the whole PostgreSQL.
    while not waiter.answer.done():
        await busy.run("answer audit tails")
    await expect(reviewer.rows).to_have_count(before + 1)
    await expect(reviewer.rows.first).to_contain_text("203.0.113.200")
    await live.uncheck()
    assert [e["kind"] for e in await busy.events("audit.query") if e.get("kind") == "follow"] == ["follow"]


async def test_the_state_of_the_seals_is_shown(visitors: Visitors, busy: Site) -> None:
    reviewer = await visit(visitors, busy)
    seals = reviewer.page.locator(".seals")
    await expect(seals.locator("summary")).to_contain_text(re.compile(r"\d, in time"))
    await seals.locator("summary").click()
    await expect(seals).to_contain_text("ed25519:")
    await reviewer.page.keyboard.press("Escape")
    await expect(seals.get_by_text("Public key", exact=True)).to_be_hidden()


@pytest.mark.parametrize("label", ["CSV, for spreadsheets", "JSON lines, with seals"])
async def test_what_is_asked_is_exported_as_a_file(
    visitors: Visitors, busy: Site, tmp_path: Path, label: str
) -> None:
    reviewer = await visit(visitors, busy, "/audit#event=pairing.redeem&since=7d")
    await expect(reviewer.rows).to_have_count(31)
    await reviewer.page.get_by_text("Export", exact=True).click()
    async with reviewer.page.expect_download() as download:
        await reviewer.page.get_by_role("button", name=label).click()
    taken = await download.value
    await taken.save_as(tmp_path / "taken")
    text = (tmp_path / "taken").read_text(encoding="utf-8")
    if label.startswith("CSV"):
        assert re.fullmatch(r"audit-.*\.csv", taken.suggested_filename)
        assert len(list(csv.DictReader(text.splitlines()))) == 31
    else:
        assert sum(line.startswith('{"seq"') for line in text.splitlines()) == 31
    await expect(reviewer.page.locator(".notice")).to_contain_text("Exported")
    assert [event["state"] for event in await busy.events("audit.export")] == ["begun", "complete"]
