"""A server that is killed: paired devices come back without a new code, to the settings as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from pairing_server.client import PairingClient
from tests.cli.commands import Operator
from tests.cli.serving import serving

PASSWORD = "a long enough password"


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path, PORT="0", REGISTRATION="open")


@pytest.fixture
def devices() -> Iterator[ExitStack]:
    with ExitStack() as clients:
        yield clients


async def kept_rev(url: str) -> int | None:
    """The revision of the settings that are safe in the database."""
    connection = await asyncpg.connect(url)
    try:
        found: int | None = await connection.fetchval("SELECT max(rev) FROM channel_settings")
        return found
    finally:
        await connection.close()


async def test_after_a_kill_paired_devices_find_their_channel_and_settings(
    operator: Operator, database_url: str, devices: ExitStack
) -> None:
    with serving(operator.environ, operator.folder) as server:
        desktop = devices.enter_context(PairingClient(server.url, "desktop"))
        await desktop.register("alice", PASSWORD)
        await desktop.login("alice", PASSWORD)
        mobile = devices.enter_context(PairingClient(server.url, "mobile", access_token=desktop.access_token))
        code = await desktop.generate_code()
        await mobile.redeem(code.code)
        shown, held = await desktop.connect(), await mobile.connect()
        before = await shown.join(code.channel)
        await held.join(code.channel)
        await shown.sync_settings({"gain": 75, "name": "Büro"})
        await held.expect("settings_sync")
        await held.sync_settings({"gain": 80})
        await shown.expect("settings_sync")
        await shown.send({"n": 1}, id="1")
        seq = (await shown.expect("ack"))["seq"]
        while await kept_rev(database_url) != 2:
            pass
        server.kill()
        for connection in (shown, held):
            assert await connection.expect_close() is None
    with serving(operator.environ, operator.folder) as server:
        for client in (desktop, mobile):
            client.url = server.url
        async with await desktop.connect() as shown, await mobile.connect() as held:
            joined = await shown.join(code.channel, last_seq=seq, epoch=before["epoch"])
            assert joined["settings"] == {"gain": 80, "name": "Büro"}
            assert (joined["rev"], joined["seq"], joined["recovered"]) == (2, 0, False)
            assert joined["epoch"] != before["epoch"]
            # What is sent before the other is back waits for it.
            await shown.send({"n": 2}, id="2")
            assert (await shown.expect("ack"))["seq"] == 1
            joined = await held.join(code.channel)
            assert (joined["settings"]["gain"], joined["rev"], joined["recovered"]) == (80, 2, False)
            assert (await held.expect("channel_message"))["payload"] == {"n": 2}
            await held.sync_settings({"gain": 81})
            while (change := await shown.expect("settings_sync")).get("seq") is None:
                pass
            assert (change["settings"]["gain"], change["rev"]) == (81, 3)
            await shown.expect("pairing_success")
        assert json.loads(server.stop().splitlines()[-1])["message"] == "stopped"
    assert await kept_rev(database_url) == 3
