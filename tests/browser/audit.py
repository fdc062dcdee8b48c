"""The page for reviewers, as a reviewer uses it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from playwright.async_api import Locator, Page, expect

from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext, system
from pairing_server.store.audit_events import Event
from tests.browser.pages import Visitors
from tests.devices import Site

NAME, PASSWORD = "rita", "a reviewer's long password"
# What happens, how often, and the hours in which it does.
SCRIPT = (
    ("auth.login", "success", None, 30, (0, 24)),
    ("auth.token_issued", "success", None, 60, (0, 24)),
    ("pairing.code_created", "success", None, 25, (2, 22)),
    ("ws.connected", "success", None, 50, (1, 23)),
    ("channel.joined", "success", None, 44, (1, 23)),
    ("pairing.redeem", "success", None, 22, (2, 22)),
    ("pairing.redeem", "failure", "no_such_code", 9, (5, 7)),
    ("auth.login", "failure", "password", 14, (9, 10)),
    ("auth.lockout", "denied", None, 2, (9, 10)),
    ("session.hijack_attempt", "denied", None, 1, (15, 16)),
    ("limit.rate", "denied", "message", 4, (16, 18)),
    ("system.error", "error", None, 1, (20, 21)),
)


@dataclass(frozen=True)
class Reviewer:
    """Somebody before the page."""

    page: Page

    @property
    def rows(self) -> Locator:
        return self.page.locator(".scroll tbody tr")

    @property
    def details(self) -> Locator:
        return self.page.get_by_role("dialog")

    @property
    def problem(self) -> Locator:
        return self.page.locator(".card > .problem")

    @property
    def chart(self) -> Locator:
        return self.page.get_by_label("Events over time")

    def chip(self, label: str) -> Locator:
        return self.page.locator(".chip", has_text=label)

    async def log_in(self, name: str = NAME, password: str = PASSWORD) -> None:
        await self.page.get_by_label("Username").fill(name)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Log in").click()

    async def sign_out(self) -> None:
        await self.page.get_by_role("button", name="Log out").click()
        await expect(self.page.get_by_label("Username")).to_be_visible()

    async def search(self, **filters: str) -> None:
        """Fill in filters by their names, and search."""
        for name, value in filters.items():
            await self.page.locator(f"#f-{name}").fill(value)
        await self.page.get_by_role("button", name="Search", exact=True).click()
        await self.asked()

    async def asked(self) -> None:
        """Until the page asks what its address says: no row of an earlier answer is there any more."""
        # It is told of a new address in a task of its own.
        await self.page.evaluate("() => new Promise((done) => setTimeout(done))")

    async def settled(self) -> None:
        """Until the question in the address is answered."""
        await self.asked()
        await expect(self.page.locator(".page:not([aria-busy])")).to_be_visible()


async def visit(visitors: Visitors, site: Site, path: str = "/audit") -> Reviewer:
    """A reviewer who has logged in."""
    reviewer = Reviewer(await visitors.visit(f"{site.url}{path}"))
    await reviewer.log_in()
    await expect(reviewer.rows.first).to_be_visible()
    await reviewer.settled()
    return reviewer


async def hire(site: Site) -> None:
    """An account for the reviewer, with a password that works."""
    await site.node.services.accounts.add_user(system(utcnow()), NAME, PASSWORD, "auditor")


async def happen(site: Site) -> list[str]:
    """Record a day's events now. The statements that give them the times of a day need a superuser."""
    draw, audit, now = random.Random(7), site.node.audit, utcnow()
    people = {name: (await site.account(name)).subject for name in ("ada", "grace", "alan", "barbara")}
    places = dict(zip(people, ("10.1.2.3", "10.1.2.4", "2001:db8:7::21", "198.51.100.23"), strict=True))
    made: list[tuple[Event, timedelta]] = []
    for name, outcome, reason, count, (first, last) in SCRIPT:
        for _ in range(count):
            who = draw.choice(list(people))
            stranger = outcome in ("failure", "denied")
            caller = RequestContext(
                utcnow(),
                subject=None if stranger and draw.random() < 0.6 else people[who],
                address="203.0.113.66" if stranger else places[who],
                connection_id=UUID(int=draw.getrandbits(128)) if name.startswith(("ws", "channel")) else None,
                kind="user",
            )
            pairing = UUID(int=draw.randrange(1, 9)) if name.startswith(("pairing", "channel")) else None
            event = audit.event(
                name, outcome, caller.at(now), reason=reason, pairing_id=pairing, **ATTRS.get(name, {})
            )
            made.append((event, timedelta(hours=24 - draw.uniform(first, last))))
    async with site.node.database.transaction() as conn:
        await audit.record(conn, *(event for event, _ in made))
    return [
        f"UPDATE audit_events SET recorded_at = now() - interval '{ago.total_seconds()} s',"
        f" occurred_at = now() - interval '{ago.total_seconds()} s' WHERE event_id = '{event.event_id}'"
        for event, ago in made
    ]


async def seal(site: Site) -> None:
    await site.node.services.audit.sealer.seal(system(utcnow()))


ATTRS: dict[str, dict[str, object]] = {
    "auth.token_issued": {"kind": "access", "expires_in": 3600},
    "ws.connected": {"token_via": "query"},
    "channel.joined": {"slot": "desktop"},
    "auth.lockout": {"scope": "redeem_address", "until": "2026-11-25T21:00:00Z"},
    "session.hijack_attempt": {"session_id": "desktop-session-1"},
    "system.error": {"where": "prune", "exception_class": "TimeoutError"},
    "limit.rate": {"scope": "message", "limit": 60},
}
