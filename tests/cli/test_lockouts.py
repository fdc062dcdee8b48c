"""lockouts …: from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import InvalidCode, RateLimited
from pairing_server.request_context import RequestContext
from pairing_server.security.addresses import limit_key
from pairing_server.services import rate_limits
from pairing_server.services.rate_limits import LimitKey
from pairing_server.store import users
from tests.cli.commands import Operator
from tests.conftest import CONFIGURATION
from tests.devices import Site


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path)


async def test_who_is_locked_out_is_listed_and_let_in_again(site: Site, operator: Operator) -> None:
    caller = RequestContext(
        utcnow(),
        subject="https://id.example|ada",
        address="203.0.113.7",
        address_key="203.0.113.7",
        kind="user",
    )
    for _ in range(10):
        with pytest.raises(InvalidCode):
            await site.node.services.pairings.redeem_code(caller.at(utcnow()), "000000", "mobile-session")
    with pytest.raises(RateLimited):
        await site.node.services.pairings.redeem_code(caller.at(utcnow()), "000000", "mobile-session")
    [listed] = [
        line.split("\t")
        for line in operator.says("lockouts", "list").splitlines()
        if line.startswith("redeem_user")
    ]
    assert (listed[1], listed[3]) == (caller.subject, "1")
    told = operator.says("lockouts", "lift", "redeem_user", listed[1])
    assert told == f"{caller.subject} may try again.\n"
    with pytest.raises(InvalidCode):
        await site.node.services.pairings.redeem_code(caller.at(utcnow()), "000000", "mobile-session")
    assert "via=cli" in operator.says("audit", "list", "--event", "admin.action")


@pytest.mark.parametrize(
    ("kind", "counted", "given"),
    [
        ("login_user", users.username_key("Straße"), "STRASSE"),
        ("login_address", limit_key("2001:db8::1"), "2001:db8::2"),
    ],
)
async def test_a_key_may_be_written_in_any_way_that_counts_as_the_same(
    site: Site, operator: Operator, kind: str, counted: str, given: str
) -> None:
    async with site.node.database.transaction() as conn:
        counting = await rate_limits.hold(
            conn, [LimitKey(kind, counted, getattr(CONFIGURATION.attempt_policies, kind))], utcnow()
        )
        await counting.charge(utcnow())
    assert operator.says("lockouts", "lift", kind, given) == f"{given} may try again.\n"
    assert "There is no lock-out" in operator.refuses("lockouts", "lift", kind, given)


def test_what_is_not_there_is_said(operator: Operator) -> None:
    assert operator.run("lockouts", "list").err == "There are no lock-outs.\n"
    assert "There is no lock-out redeem_user" in operator.refuses("lockouts", "lift", "redeem_user", "ada")
    operator.refuses("lockouts", "lift", "nonsense", "ada", status=2)
