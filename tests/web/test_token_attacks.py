"""Every forged token of tests/security/test_token_attacks.py, sent to a running server: refused, and on record."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.security.keys import SigningKey
from tests.conftest import StartNode
from tests.devices import Site
from tests.security.forge import KEY, access_token
from tests.security.test_token_attacks import attacks

pytestmark = pytest.mark.one_node

# What no header can carry does not come that far.
_SENDABLE = re.compile(r"[\x21-\x7e]{1,6000}")


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node(jwt_keys=(KEY, SigningKey("before", b"b" * 32)))


def forged() -> dict[str, tuple[str, str]]:
    """Those that can be sent, made for this moment. What is a second too early would be so for a second only: here it
    is much too early."""
    second = int(utcnow().timestamp()) + 1
    ahead = {
        f"{claim} 31 s ahead": (
            access_token({"iat": second, "exp": second + 3600, claim: second + 600}),
            "not_yet_valid",
        )
        for claim in ("iat", "nbf")
    }
    made = attacks(second)
    assert ahead.keys() < made.keys()
    return {name: found for name, found in {**made, **ahead}.items() if _SENDABLE.fullmatch(found[0])}


NAMES = tuple(forged())


async def on_record(site: Site, kind: str) -> Counter[str]:
    """How many refused tokens of that kind the audit log tells of, by reason."""
    await site.node.audit.flush(system(utcnow()), last=True)
    async with site.node.database.transaction() as conn:
        rows = await conn.exec_driver_sql(
            "SELECT reason, sum(count) FROM audit_events"
            f" WHERE event = 'auth.token_rejected' AND attrs ->> 'kind' = '{kind}' GROUP BY reason"
        )
        return Counter({reason: int(count) for reason, count in rows})


async def test_every_forged_token_is_401_over_http_and_each_is_on_record_with_its_reason(site: Site) -> None:
    assert len(NAMES) >= 60
    expected: Counter[str] = Counter()
    for name in NAMES:
        token, reason = forged()[name]
        expected[reason] += 1
        answer = await site.get("/api/pairings", token)
        assert (answer.status, answer.error) == (401, "INVALID_TOKEN"), name
        assert answer.body["details"] == {}, name
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"', name
    assert await on_record(site, "access") == expected


async def test_every_forged_token_is_4401_on_the_websocket_and_each_is_on_record(site: Site) -> None:
    for name in NAMES:
        socket = await site.open(forged()[name][0], via="header")
        error = await socket.error()
        assert (error["code"], error["details"]) == ("INVALID_TOKEN", {}), name
        assert await socket.closed() == 4401, name
    assert (await on_record(site, "ws")).total() == len(NAMES)
