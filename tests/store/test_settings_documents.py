"""The settings documents at rest: the higher revision stays, and nothing outlives its pairing."""

from __future__ import annotations

from itertools import permutations
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import LIVE_STATES, pairings
from pairing_server.store import settings_documents as store
from pairing_server.store.settings_documents import Kept
from tests.store.rows import ENDED_STATES, NOW, fetch_on, row_in, seconds


async def keep(conn: AsyncConnection, *documents: Kept) -> None:
    await store.keep(fetch_on(conn), documents)


def kept(pairing_id: UUID, rev: int, document: bytes = b'{"a":1}', epoch: str = "e") -> Kept:
    return Kept(pairing_id, epoch, rev, document)


async def test_a_document_comes_back_byte_for_byte(conn: AsyncConnection) -> None:
    # jsonb would refuse the first two and rewrite the others.
    document = rb'{"nul":"\u0000","lone":"\ud800","big":1e400,"twice":{"b":1,"b":2},"spaced": 1.0}'
    pairing = await row_in(conn, "active")
    await keep(conn, kept(pairing, 7, document))
    assert await store.of_pairing(conn, pairing) == kept(pairing, 7, document)


async def test_a_pairing_without_one_has_none(conn: AsyncConnection) -> None:
    assert await store.of_pairing(conn, await row_in(conn, "active")) is None


async def test_of_two_servers_the_higher_revision_stays_whoever_writes_first(conn: AsyncConnection) -> None:
    """A server that was cut off comes back with what is old by now."""
    written = [(2, b"{}", "b"), (3, b'{"a":3}', "a"), (3, b'{"b":3}', "b")]
    for number, order in enumerate(permutations(written)):
        pairing = await row_in(conn, "active", f"{number:06d}")
        for rev, document, epoch in order:
            await keep(conn, kept(pairing, rev, document, epoch))
        assert await store.of_pairing(conn, pairing) == kept(pairing, 3, b'{"b":3}', "b")


async def test_many_are_one_statement(conn: AsyncConnection) -> None:
    ids = [await row_in(conn, "active", f"{number:06d}") for number in range(20)]
    await keep(conn, *(kept(pairing, number) for number, pairing in enumerate(ids)))
    assert [(found := await store.of_pairing(conn, pairing)) and found.rev for pairing in ids] == list(
        range(20)
    )
    await keep(conn)


@pytest.mark.parametrize("state", LIVE_STATES)
async def test_every_live_pairing_keeps_its_document(conn: AsyncConnection, state: str) -> None:
    pairing = await row_in(conn, state)
    await keep(conn, kept(pairing, 1))
    assert await store.forget_ended(conn, NOW - seconds(60)) == 0
    assert await store.of_pairing(conn, pairing) is not None


@pytest.mark.parametrize("state", ENDED_STATES)
async def test_a_pairing_that_has_ended_gets_none(conn: AsyncConnection, state: str) -> None:
    pairing = await row_in(conn, state)
    await keep(conn, kept(pairing, 1), kept(uuid4(), 1))
    assert await store.of_pairing(conn, pairing) is None


async def test_the_document_goes_when_its_pairing_has_ended(conn: AsyncConnection) -> None:
    over, other = await row_in(conn, "active"), await row_in(conn, "active", "000002")
    await keep(conn, kept(over, 1), kept(other, 1))
    await conn.execute(pairings.update().where(pairings.c.id == over).values(state="closed", ended_at=NOW))
    assert await store.forget_ended(conn, NOW - seconds(60)) == 1
    assert await store.of_pairing(conn, over) is None
    assert await store.of_pairing(conn, other) is not None


async def test_the_document_goes_with_its_pairing_even_where_a_release_does_not_know_it(
    conn: AsyncConnection,
) -> None:
    pairing = await row_in(conn, "active")
    await keep(conn, kept(pairing, 1))
    await conn.execute(delete(pairings).where(pairings.c.id == pairing))
    assert await store.of_pairing(conn, pairing) is None
