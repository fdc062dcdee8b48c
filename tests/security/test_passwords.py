from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Literal

import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from argon2.profiles import CHEAPEST

from pairing_server.errors import Unavailable
from pairing_server.security.passwords import PasswordCheck, Passwords

REFUSED = PasswordCheck(ok=False, rehash=False)


class RecordingHasher(PasswordHasher):
    """A cheap hasher that keeps what it was asked to verify."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        self.verified.append(str(hash))
        return super().verify(hash, password)


class HeldHasher(PasswordHasher):
    """A hasher that waits for `go` before it verifies, and fails if that never comes."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.go = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        assert self.go.wait(timeout=60)
        return super().verify(hash, password)


@pytest.fixture
def recorder() -> RecordingHasher:
    return RecordingHasher()


@pytest.fixture
def passwords(recorder: RecordingHasher) -> Iterator[Passwords]:
    made = Passwords(hasher=recorder)
    yield made
    made.close()


async def test_hashes_are_argon2id_of_the_promised_cost(io_loop: object) -> None:
    passwords = Passwords(threads=1)
    stored = await passwords.hash("correct horse battery")
    parameters = extract_parameters(stored)
    assert (parameters.type, parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
        Type.ID,
        19_456,
        2,
        1,
    )
    assert await passwords.verify(stored, "correct horse battery") == PasswordCheck(ok=True, rehash=False)
    passwords.close()


async def test_a_wrong_password_is_refused(io_loop: object, passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse battery")
    assert await passwords.verify(stored, "correct horse batterY") == REFUSED
    assert await passwords.verify(stored, "") == REFUSED


async def test_the_same_password_is_never_stored_alike(io_loop: object, passwords: Passwords) -> None:
    assert await passwords.hash("correct horse battery") != await passwords.hash("correct horse battery")


async def test_a_password_is_right_however_its_letters_are_composed(
    io_loop: object, passwords: Passwords
) -> None:
    stored = await passwords.hash("pa\u0308ssword-pa\u0308ssword")
    assert (await passwords.verify(stored, "p\u00e4ssword-p\u00e4ssword")).ok


async def test_a_lone_surrogate_is_refused_without_failing(io_loop: object, passwords: Passwords) -> None:
    assert await passwords.verify(await passwords.hash("correct horse battery"), "\ud800") == REFUSED


async def test_outdated_parameters_ask_for_a_rehash_only_when_the_password_is_right(
    io_loop: object, passwords: Passwords
) -> None:
    outdated = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash("correct horse battery")
    assert await passwords.verify(outdated, "correct horse battery") == PasswordCheck(ok=True, rehash=True)
    assert await passwords.verify(outdated, "wrong") == REFUSED


async def test_an_unknown_user_costs_the_same_work_as_a_wrong_password(
    io_loop: object, passwords: Passwords, recorder: RecordingHasher
) -> None:
    stored = await passwords.hash("correct horse battery")
    assert await passwords.verify(stored, "wrong") == REFUSED
    assert await passwords.verify(None, "wrong") == REFUSED
    known, unknown = recorder.verified
    assert known != unknown
    assert extract_parameters(known) == extract_parameters(unknown)


@pytest.mark.parametrize(
    "garbage", ["", "x", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$AAAA$ü", "$2b$12$abc"]
)
async def test_a_garbled_hash_is_refused_after_the_same_work(
    io_loop: object, passwords: Passwords, recorder: RecordingHasher, garbage: str
) -> None:
    assert await passwords.verify(garbage, "wrong") == REFUSED
    dummy = extract_parameters(recorder.verified[-1])
    assert (dummy.memory_cost, dummy.time_cost) == (recorder.memory_cost, recorder.time_cost)


async def test_more_than_the_queue_is_refused_at_once_and_room_comes_back(io_loop: object) -> None:
    hasher = HeldHasher()
    passwords = Passwords(threads=1, queue=2, hasher=hasher)
    taken = [asyncio.ensure_future(passwords.verify(None, "x")) for _ in range(3)]
    refused = asyncio.ensure_future(passwords.verify(None, "x"))
    with pytest.raises(Unavailable) as caught:
        await refused
    assert caught.value.retry_after_s == 2
    hasher.go.set()
    assert await asyncio.gather(*taken) == [REFUSED] * 3
    assert await passwords.verify(None, "x") == REFUSED
    passwords.close()


async def test_the_event_loop_goes_on_while_a_password_is_verified(io_loop: object) -> None:
    hasher = HeldHasher()
    passwords = Passwords(threads=1, hasher=hasher)
    verdict = asyncio.ensure_future(passwords.verify(None, "x"))
    await asyncio.sleep(0)
    # Were the loop blocked, this line would not be reached in time.
    hasher.go.set()
    assert await verdict == REFUSED
    passwords.close()


async def test_after_close_passwords_are_unavailable(io_loop: object) -> None:
    passwords = Passwords(hasher=PasswordHasher.from_parameters(CHEAPEST))
    passwords.close()
    with pytest.raises(Unavailable):
        await passwords.verify(None, "x")
