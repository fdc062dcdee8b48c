"""What counts as an outage of the database."""

from __future__ import annotations

import asyncio

import pytest

from pairing_server.db.circuit_breaker import IN_A_ROW, CircuitBreaker, DatabaseUnavailable


class Heard:
    """What a breaker tells, and the wait for it."""

    def __init__(self) -> None:
        self.states: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, state: str, reason: str, seconds: float) -> None:
        self.states.put_nowait(state)


async def well() -> None:
    """The probe of a database that is well."""


async def after_an_outage(heard: Heard) -> CircuitBreaker:
    breaker = CircuitBreaker(well, heard)
    breaker.failed("read_only", asyncio.get_running_loop().time())
    assert [await heard.states.get(), await heard.states.get()] == ["down", "up"]
    breaker.check()
    return breaker


async def test_failures_in_a_row_are_an_outage() -> None:
    breaker, now = CircuitBreaker(well, Heard()), asyncio.get_running_loop().time()
    for _ in range(IN_A_ROW - 1):
        breaker.failed("slow", now)
    breaker.check()
    breaker.failed("slow", now)
    with pytest.raises(DatabaseUnavailable):
        breaker.check()
    await breaker.stop()


async def test_what_was_asked_before_the_last_outage_ended_starts_no_new_one() -> None:
    asked_at = asyncio.get_running_loop().time()
    breaker = await after_an_outage(Heard())
    for _ in range(IN_A_ROW):
        breaker.failed("slow", asked_at)
    breaker.check()
    for _ in range(IN_A_ROW):
        breaker.failed("slow", asyncio.get_running_loop().time())
    with pytest.raises(DatabaseUnavailable):
        breaker.check()
    await breaker.stop()


async def test_why_it_is_away_now_is_said_once_when_that_changes(caplog: pytest.LogCaptureFixture) -> None:
    answered = asyncio.Semaphore(0)

    async def probe() -> None:
        answered.release()
        raise DatabaseUnavailable("away", "refused") from ConnectionError("password authentication failed")

    breaker = CircuitBreaker(probe, Heard())
    breaker.failed("read_only", asyncio.get_running_loop().time())
    for _ in range(2):
        await answered.acquire()
    assert breaker.outage is not None and breaker.outage.reason == "refused"
    await breaker.stop()
    assert [(record.message, vars(record)["error"]) for record in caplog.records] == [
        ("database still down", "password authentication failed")
    ]
