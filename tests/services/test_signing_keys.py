"""Rotating signing keys while everything goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import Forbidden, NotFound, ValidationFailed
from pairing_server.request_context import RequestContext, system
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import OVERLAP, SigningKey, generate_key
from pairing_server.services import signing_keys
from pairing_server.services.codes import Codes
from pairing_server.store import pairings
from tests.conftest import CONFIGURATION, StartNode
from tests.devices import Account, Site

PASSWORD = "correct horse battery"
RotatedPair = tuple[Site, Site, KeyFile]


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    made = KeyFile(tmp_path / "jwt-keys")
    made.read()
    return made


@pytest.fixture
def two_on_a_file(start_node: StartNode, file: KeyFile) -> RotatedPair:
    """Two servers that share a data directory; only the test looks after their keys."""
    found = []
    for _ in range(2):
        own = KeyFile(file.path)
        site = start_node(own, jwt_keys=own.read())
        found.append(site)
    return found[0], found[1], file


async def look_after(now: datetime, *sites: Site) -> None:
    for site in sites:
        await site.node.services.signing_keys.reload_keys(system(now))


async def test_three_rotations_under_traffic_fail_no_login_and_drop_no_channel(
    two_on_a_file: RotatedPair,
) -> None:
    """Logins, codes and sockets on two servers, of which one learns of each new key later than the other."""
    first, second, _ = two_on_a_file
    account = await first.account()
    caller = RequestContext(utcnow(), address="203.0.113.1", address_key="203.0.113.1")
    await first.node.services.accounts.add_user(system(utcnow()), "grace", PASSWORD, "user")
    desktop, mobile = await first.pair(account)
    early = await first.code(account, "desktop-early")
    logins, done = 0, False

    async def traffic() -> None:
        nonlocal logins
        while not done:
            for at, other in ((first, second), (second, first)):
                issued = await at.node.services.authentication.log_in(caller.at(utcnow()), "grace", PASSWORD)
                for site in (at, other):
                    assert (await site.get("/api/pairings", issued.token)).status == 200
                grace = Account("", "grace", issued.token)
                code = await at.code(grace, "desktop-of-grace")
                assert (await other.redeem(grace, code, "mobile-of-grace")).status == 200
                (await other.connect(grace, "desktop")).close()
                logins += 1
                assert await desktop.socket.pending() == await mobile.socket.pending() == []

    running = asyncio.ensure_future(traffic())
    try:
        # Ahead of the clock by which the servers sign: their turns come when this test says so, however long it takes.
        now = utcnow() + timedelta(hours=1)
        for _ in range(3):
            await first.node.services.signing_keys.rotate(system(now))
            # The second server learns of the key five seconds after the first; then the overlap ends.
            for seconds, sites in ((0, (first,)), (5, (second,)), (20, (first, second))):
                await look_after(now + timedelta(seconds=seconds), *sites)
                reached = logins + 2
                while logins < reached and not running.done():
                    await asyncio.wait([running], timeout=0.01)
            newest = first.node.services.signing_keys.keyring.keys[0]
            assert [site.node.services.signing_keys.keyring.signing(now) for site in (first, second)] == [
                newest,
                newest,
            ]
            now += timedelta(seconds=60)
    finally:
        done = True
        await running
    assert len(first.node.services.signing_keys.keyring.keys) == 4
    assert logins >= 3 * 3 * 2
    # What was there before the first rotation: the code, the channel, the way back into it.
    assert (await second.redeem(account, early, "mobile-early")).status == 200
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    again = await first.join(account, "mobile", desktop.channel, mobile.session_id)
    again.socket.send({"type": "channel_message", "payload": {"still": "here"}})
    assert (await desktop.socket.expect("client_joined"))["device_type"] == "mobile"


async def test_with_the_old_key_gone_live_channels_and_those_that_came_back_keep_their_names(
    two_on_a_file: RotatedPair,
) -> None:
    site, _, file = two_on_a_file
    account = await site.account()
    desktop, mobile = await site.pair(account)
    now = utcnow()
    await site.node.services.signing_keys.rotate(system(now))
    await look_after(now, site)
    await look_after(now + OVERLAP, site)
    file.rewrite(lambda found: found[:1])
    await look_after(now + OVERLAP, site)
    fresh = Account(
        account.subject, "", site.node.backend.tokens.issue_access(account.subject, utcnow()).token
    )
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    await site.join(fresh, "mobile", desktop.channel, mobile.session_id)
    await desktop.socket.expect("client_joined")
    # The old key is gone indeed.
    assert (await site.get("/api/pairings", account.token)).status == 401


@pytest.fixture
def before_and_after(start_node: StartNode) -> tuple[Site, Site]:
    """A server with one key, and one with a newer key before that."""
    old = generate_key()
    return start_node(jwt_keys=(old,)), start_node(jwt_keys=(generate_key(), old))


async def test_a_join_stores_the_name_under_the_current_key(
    before_and_after: tuple[Site, Site],
) -> None:
    before, after = before_and_after
    account = await before.account()
    code = await before.code(account, "desktop-session")
    await after.join(account, "desktop", f"pair-{code}", "desktop-session")
    async with after.node.database.transaction() as conn:
        assert (
            await pairings.by_code(
                conn, Codes([after.node.services.signing_keys.keyring.keys[0].secret]).macs(code)
            )
            is not None
        )


async def test_a_rotation_is_recorded_when_ordered_and_by_each_server_that_takes_it_over(
    two_on_a_file: RotatedPair,
) -> None:
    first, second, _ = two_on_a_file
    [old] = first.node.services.signing_keys.keyring.keys
    fresh = await first.node.services.signing_keys.rotate(system(utcnow()))
    await look_after(utcnow(), first, second)
    await first.node.services.signing_keys.retire(system(utcnow()), old.kid, at_once=True)
    await look_after(utcnow(), first)
    found = await first.events("key.rotated")
    assert [(event["state"], event["kid"]) for event in found if event["state"] != "taken_over"] == [
        ("added", fresh.kid),
        ("retired", old.kid),
    ]
    taken = [event for event in await first.events("key.rotated") if event["state"] == "taken_over"]
    assert [(event["added"], event["removed"]) for event in taken] == [(fresh.kid, ""), ("", old.kid)]


async def test_reloaded_settings_bring_their_keys(site: Site) -> None:
    fresh = generate_key()
    account = await site.account()
    site.node.reload(replace(CONFIGURATION, jwt_keys=(fresh, *CONFIGURATION.jwt_keys)))
    assert site.node.services.signing_keys.keyring.signing(utcnow() + OVERLAP) == fresh
    assert (await site.get("/api/pairings", account.token)).status == 200


@pytest.mark.parametrize("damage", ["damaged", ""])
async def test_a_damaged_file_leaves_the_keys_in_use_and_is_logged_once(
    two_on_a_file: RotatedPair, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    site, _, file = two_on_a_file
    in_use = site.node.services.signing_keys.keyring.keys
    file.path.write_text(damage)
    await look_after(utcnow(), site, site)
    assert site.node.services.signing_keys.keyring.keys == in_use
    [record] = caplog.records
    assert (record.getMessage(), vars(record)["path"]) == ("key file refused", str(file.path))
    assert vars(record)["error"].startswith("key 1 is not kid:secret")
    file.path.unlink()
    await look_after(utcnow(), site)
    assert site.node.services.signing_keys.keyring.keys == in_use
    assert not file.path.exists()


async def test_a_key_is_retired_only_when_its_last_token_is_over(two_on_a_file: RotatedPair) -> None:
    site, _, _ = two_on_a_file
    node, now = site.node, utcnow()
    [old] = node.services.signing_keys.keyring.keys
    with pytest.raises(ValidationFailed, match="This key signs"):
        await node.services.signing_keys.retire(system(now), old.kid)
    await node.services.signing_keys.rotate(system(now))
    with pytest.raises(ValidationFailed, match="may be in use until"):
        await node.services.signing_keys.retire(system(now + timedelta(hours=23)), old.kid)
    with pytest.raises(NotFound, match="keys list"):
        await node.services.signing_keys.retire(system(now), "nobody")
    await node.services.signing_keys.retire(system(now + timedelta(hours=24, minutes=3)), old.kid)
    assert node.services.signing_keys.keyfile is not None
    assert old not in node.services.signing_keys.keyfile.read()


async def test_keys_set_by_configuration_are_not_rotated_by_the_server(site: Site) -> None:
    with pytest.raises(Forbidden, match="PAIRING_JWT_KEYS"):
        await site.node.services.signing_keys.rotate(system(utcnow()))


def test_the_number_of_keys_is_limited() -> None:
    many = [SigningKey(f"k{number}", b"s" * 32) for number in range(signing_keys.MOST)]
    with pytest.raises(ValidationFailed, match="retire old ones"):
        signing_keys.with_fresh(many, generate_key())
