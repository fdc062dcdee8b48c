"""status: what a running server tells of itself, and to whom."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from pairing_server.clock import utcnow
from pairing_server.config import Configuration
from pairing_server.request_context import system
from pairing_server.server.status import describe
from tests.cli.commands import Operator
from tests.cli.serving import serving
from tests.devices import Site


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path, PORT="0", DATA_DIR=str(tmp_path / "data"))


def test_a_running_server_is_described_and_a_stopped_one_is_not(operator: Operator) -> None:
    with serving(operator.environ, operator.folder) as server:
        text = operator.says("status")
        assert f"process {server.process.pid}, running" in text
        assert "0 of 0 users" in text and "database     up" in text and "no backup known" in text
        told = json.loads(operator.says("status", "--json"))
        assert told["pid"] == server.process.pid
        assert told["limits"]["connections_per_user"] == Configuration().connections_per_user
        [socket] = (operator.folder / "data").glob("status-*.socket")
        assert socket.stat().st_mode & 0o777 == 0o600
        server.stop()
        assert not socket.exists()
    assert "No server runs" in operator.refuses("status")


def test_what_a_killed_server_has_left_is_no_server(operator: Operator) -> None:
    with serving(operator.environ, operator.folder) as server:
        server.kill()
    assert list((operator.folder / "data").glob("status-*.socket"))
    assert "No server runs" in operator.refuses("status")


async def test_who_is_connected_is_told_without_any_secret(site: Site) -> None:
    account = await site.account()
    desktop, _ = await site.pair(account)
    await site.node.services.audit.sealer.seal(system(utcnow()))
    site.node.app.last_backup = utcnow() - timedelta(days=3)
    told = await describe(site.node)
    assert 259200 <= told["database"]["backup_age_s"] < 259300
    assert told["connections"] == {"open": 2, "users": 1, "desktop": 1, "mobile": 1}
    assert told["channels"] == {"2": 1}
    assert {device["user"] for device in told["devices"]} == {account.subject}
    assert len({device["pairing_id"] for device in told["devices"]}) == 1
    text = json.dumps(told)
    for secret in (desktop.channel, account.token):
        assert secret not in text
    # Any six digits may stand in a number or an id.
    assert not re.search(rf"(?<![\w-]){desktop.channel.removeprefix('pair-')}(?![\w-])", text)
    site.node.app.draining = True
    assert (await describe(site.node))["state"] == "draining"
    site.node.app.draining = False
