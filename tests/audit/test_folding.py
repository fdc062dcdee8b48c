"""Repeated events are folded: how many stay single, and what counts as one source."""

from __future__ import annotations

from pairing_server.audit.folding import MOST_KINDS, Folding
from pairing_server.request_context import RequestContext
from tests.audit.logs import NOW, audit_log, invalid_message


def test_sources_beyond_the_bound_of_a_minute_share_one_count() -> None:
    log, folding = audit_log(), Folding()
    singly = sum(not folding.folds(invalid_message(log, number)) for number in range(MOST_KINDS + 500))
    [rest] = folding.take_out()
    assert singly == MOST_KINDS + 10
    assert (rest.count, rest.actor_subject, rest.address) == (490, None, None)


def test_the_addresses_of_one_network_are_one_source() -> None:
    log, folding = audit_log(), Folding()
    callers = [RequestContext(NOW, address=f"2001:db8::{number:x}") for number in range(1, 40)]
    events = [log.event("ws.rejected", "denied", caller) for caller in callers]
    assert sum(not folding.folds(event) for event in events) == 10
