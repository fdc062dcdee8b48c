"""Whatever ends in the database reaches its devices, on whichever server they are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.services.codes import Codes
from pairing_server.store import pairing_changes
from tests.conftest import StartNode, execute_within
from tests.devices import Account, Device, Site

POLL = "poll pairing changes"


@pytest.fixture
def servers(start_node: StartNode) -> tuple[Site, Site]:
    """Two on one database: the devices are connected to the first."""
    return start_node(redeem_policy="any_user"), start_node(redeem_policy="any_user")


async def own(site: Site, account: Account) -> dict[str, Any]:
    """The account's only live pairing."""
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    return dict(pairing)


async def waiting(site: Site, account: Account, session_id: str = "desktop-1") -> Device:
    """A desktop that has joined and shows its code."""
    code = await site.code(account, session_id)
    return await site.join(account, "desktop", f"pair-{code}", session_id)


async def test_what_another_server_unpairs_closes_here_with_its_messages(servers: tuple[Site, Site]) -> None:
    here, there = servers
    account = await here.account()
    desktop, mobile = await here.pair(account)
    pairing = await own(here, account)
    answer = await there.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    assert answer.status == 200
    await here.run(POLL)
    for device, gone, peer in ((desktop, "mobile", mobile), (mobile, "desktop", desktop)):
        left = await device.socket.expect(f"{gone}_disconnected")
        assert (left["force_disconnect"], left["client_id"]) == (True, peer.session_id)
        assert (await device.socket.expect("channel_closed"))["reason"] == "unpaired"
        assert await device.socket.closed() == 4410
    assert here.node.hub.channels == {}


async def test_every_desktop_hears_that_its_code_has_expired_whose_timer_ever_ended_it(
    servers: tuple[Site, Site],
) -> None:
    here, there = servers
    account = await here.account()
    desktops = [await waiting(here, account, f"desktop-{number}") for number in range(3)]
    phone = await here.account()
    code = desktops[0].channel.removeprefix("pair-")
    assert (await here.redeem(phone, code, "mobile-1")).status == 200
    await desktops[0].socket.expect("pairing_claimed")
    await there.node.backend.expiry.expire_pairings(system(utcnow() + timedelta(seconds=601)))
    await here.run(POLL)
    for desktop in desktops:
        error = await desktop.socket.error()
        assert (error["code"], error["details"]["reason"]) == ("INVALID_CHANNEL", "expired")
    # It may ask for a new code on the same socket.
    assert await desktops[1].socket.pending() == []


async def test_a_code_that_another_server_supersedes_is_announced_here(
    servers: tuple[Site, Site],
) -> None:
    here, there = servers
    account = await here.account()
    superseded = await waiting(here, account)
    await there.code(account, "desktop-1")
    await here.run(POLL)
    assert (await superseded.socket.error())["details"]["reason"] == "superseded"


async def test_a_code_redeemed_through_another_server_is_announced_once_and_the_old_channel_ends(
    servers: tuple[Site, Site],
) -> None:
    here, there = servers
    account = await here.account()
    desktop, mobile = await here.pair(account)
    code = await here.code(account, desktop.session_id)
    assert (await there.redeem(account, code, "mobile-new")).status == 200
    await here.run(POLL)
    # The desktop keeps its socket for the new channel.
    assert (await desktop.socket.expect("pairing_claimed"))["channel"] == f"pair-{code}"
    assert (await desktop.socket.expect("channel_closed"))["reason"] == "superseded"
    gone = await mobile.socket.expect("desktop_disconnected")
    assert gone["force_disconnect"] is True
    assert await mobile.socket.closed() == 4410
    assert await desktop.socket.pending() == []


async def test_a_waiting_desktop_hears_of_its_phone_once(servers: tuple[Site, Site]) -> None:
    here, there = servers
    account = await here.account()
    elsewhere, same = await waiting(here, account, "desktop-1"), await waiting(here, account, "desktop-2")
    for number, (site, desktop) in enumerate(((there, elsewhere), (here, same))):
        code = desktop.channel.removeprefix("pair-")
        for _ in range(2):
            assert (await site.redeem(account, code, f"mobile-{number}")).status == 200
    await here.run(POLL)
    await here.run(POLL)
    for desktop in (elsewhere, same):
        assert [message["type"] for message in await desktop.socket.pending()] == ["pairing_claimed"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pairings SET state = 'closed', ended_at = now(), end_reason = 'unpaired'",
        "DELETE FROM pairings",
    ],
)
async def test_what_a_person_ends_in_the_database_closes_here(
    site: Site, database_url: str, statement: str
) -> None:
    desktop, mobile = await site.pair()
    await execute_within(database_url, statement)
    await site.run(POLL)
    for device in (desktop, mobile):
        assert await device.socket.closed() == 4410
    assert site.node.hub.channels == {}


async def test_a_change_whose_transaction_commits_late_is_found_and_each_is_found_once(
    site: Site, database_url: str
) -> None:
    account = await site.account()
    ids = []
    for number in range(2):
        await site.code(account, f"desktop-{number}")
    ids = [UUID(row["id"]) for row in (await site.get("/api/pairings", account.token)).body["pairings"]]
    changes = site.node.services.changes
    await changes.poll()
    end = "UPDATE pairings SET state = 'expired', ended_at = $2, end_reason = 'expired' WHERE id = $1"
    async with site.node.database.direct() as direct:
        await direct.driver.execute(end, ids[0], utcnow())
        # A later transaction commits first.
        await execute_within(database_url, end.replace("$1", f"'{ids[1]}'").replace("$2", "now()"))
        assert await changes.poll() == 1
    assert await changes.poll() == 1
    assert await changes.poll() == 0


async def test_a_join_that_was_admitted_just_before_does_not_revive_what_another_server_ended(
    servers: tuple[Site, Site],
) -> None:
    here, there = servers
    account = await here.account()
    await here.code(account, "desktop-1")
    pairing = await own(here, account)
    await here.run(POLL)
    await there.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)
    await here.run(POLL)
    with pytest.raises(Exception, match="expired"):
        here.node.hub.open_channel(UUID(pairing["id"]), Codes.channel("123456"), 0.0)


async def test_after_an_outage_and_after_lost_transactions_all_channels_are_compared(
    site: Site, database_url: str
) -> None:
    account = await site.account()
    changes = site.node.services.changes
    await changes.poll()
    for lose in ("outage", "transactions"):
        desktop, _ = await site.pair(account)
        await changes.poll()
        await execute_within(
            database_url,
            "UPDATE pairings SET state = 'closed', ended_at = now(), end_reason = 'unpaired' WHERE ended_at IS NULL",
            "DELETE FROM pairing_changes",
        )
        assert await changes.poll() == 0
        if lose == "outage":
            site.node.database.breaker.back_at = 1.0
        else:
            changes.snapshot = "9000000000:9000000000:"
        await changes.poll()
        assert await desktop.socket.closed() == 4410


async def test_polling_reads_one_index_and_no_table(site: Site, database_url: str) -> None:
    """With an hour's changes of a busy installation in the table."""
    await execute_within(
        database_url,
        "INSERT INTO pairing_changes (xid, pairing_id)"
        " SELECT number::text::xid8, gen_random_uuid() FROM generate_series(1, 50000) AS number",
        "ANALYZE pairing_changes",
    )

    statement = pairing_changes._SINCE.replace("$1", "'49990:49995:'")
    async with site.node.database.direct() as direct:
        plan = "\n".join(row[0] for row in await direct.driver.fetch(f"EXPLAIN {statement}"))
    assert "pk_pairing_changes" in plan
    assert "Seq Scan" not in plan


async def test_changes_are_forgotten_after_ten_minutes(site: Site, database_url: str) -> None:
    await site.code(await site.account(), "desktop-1")
    await site.node.backend.expiry.expire_pairings(system(utcnow() + timedelta(seconds=300)))
    left = "SELECT count(*) FROM pairing_changes"

    async def count() -> int:
        async with site.node.database.direct() as direct:
            return int(await direct.driver.fetchval(left))

    await site.run("release names")
    assert await count() == 1
    await execute_within(
        database_url, "UPDATE pairing_changes SET recorded_at = now() - interval '11 minutes'"
    )
    await site.run("release names")
    assert await count() == 0
