"""Questions to the audit log and everybody else: neither waits for the other, and none goes on for ever."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.clock import utcnow
from pairing_server.errors import Unavailable
from pairing_server.request_context import RequestContext
from pairing_server.server.backend import READERS, READING_TIMEOUT
from tests.devices import Site

ADMIN = RequestContext(utcnow(), kind="admin")


async def test_a_question_that_takes_too_long_is_cancelled_with_advice(site: Site) -> None:
    async def answer(conn: AsyncConnection) -> None:
        # Sooner than the ten seconds, after which this side gives up as well.
        await conn.execute(text("SET LOCAL statement_timeout = '50ms'"))
        await conn.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(Unavailable, match=r"takes too long to find\. Ask for less"):
        await site.node.services.audit.reader.ask(ADMIN.at(utcnow()), "/api/audit", answer)


async def test_questions_have_ten_seconds(site: Site) -> None:
    async def answer(conn: AsyncConnection) -> str:
        return str((await conn.execute(text("SHOW statement_timeout"))).scalar_one())

    assert await site.node.services.audit.reader.ask(ADMIN.at(utcnow()), "/api/audit", answer) == "10s"
    assert READING_TIMEOUT == 10


async def test_devices_pair_while_every_connection_for_questions_is_taken(site: Site) -> None:
    taken, done = asyncio.Semaphore(0), asyncio.Event()

    async def answer(conn: AsyncConnection) -> None:
        taken.release()
        await done.wait()

    questions = [
        asyncio.ensure_future(site.node.services.audit.reader.ask(ADMIN.at(utcnow()), "/api/audit", answer))
        for _ in range(READERS)
    ]
    for _ in range(READERS):
        await taken.acquire()
    desktop, mobile = await site.pair()
    desktop.socket.send({"type": "ping"})
    await desktop.socket.expect("pong")
    assert not any(question.done() for question in questions)
    done.set()
    await asyncio.gather(*questions)
    mobile.socket.close()
