"""Hashes and verifies passwords in threads, with a bounded queue.

`limits.py` decides how often an attempt is allowed. A hash takes tens of milliseconds and 19 MiB by design: it would block
the event loop, and an unbounded number of them would fill the memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from pairing_server.errors import Unavailable

MEMORY_KIB = 19_456
PASSES = 2
LANES = 1
RETRY_AFTER_S = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PasswordCheck:
    """`ok`: the password is right. `rehash`: the stored hash of a right password has outdated parameters."""

    ok: bool
    rehash: bool


_REFUSED = PasswordCheck(ok=False, rehash=False)


class Passwords:
    """argon2id in `threads` threads, with at most `queue` calls that wait.

    Memory: `threads` × 19 MiB. Raises Unavailable when the queue is full, and after `close`.
    """

    def __init__(self, *, threads: int = 2, queue: int = 32, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._slots = threading.Semaphore(threads + queue)
        self._dummy = _dummy_hash(self._hasher)

    def check(self) -> None:
        """Raises Unavailable if the queue is full now: what comes before a call can be saved then."""
        if not self._slots.acquire(blocking=False):
            raise Unavailable(retry_after_s=RETRY_AFTER_S)
        self._slots.release()

    async def hash(self, password: str) -> str:
        """The hash to store, with its parameters and salt."""
        return await self._run(lambda: self._hasher.hash(_as_bytes(password)))

    async def verify(self, stored: str | None, password: str) -> PasswordCheck:
        """Whether the password is that of the stored hash.

        None (no such user) and a stored text that is not a hash are refused after the same work as a wrong password,
        so that the time does not show which names exist.
        """
        return await self._run(lambda: self._verify(stored, _as_bytes(password)))

    def close(self) -> None:
        """Finish the calls in the queue (a few hundred milliseconds at most), and take no more."""
        self._pool.shutdown(wait=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._slots.acquire(blocking=False):
            raise Unavailable(retry_after_s=RETRY_AFTER_S)
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            # The pool is closed: the server stops, and the semaphore does not matter any more.
            raise Unavailable(retry_after_s=RETRY_AFTER_S) from None
        # Released when the work is done, not when the caller stops waiting.
        future.add_done_callback(self._release)
        return await asyncio.wrap_future(future)

    def _release(self, _: Future[T]) -> None:
        self._slots.release()

    def _verify(self, stored: str | None, password: bytes) -> PasswordCheck:
        if stored is None:
            return self._refuse(password)
        try:
            self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return _REFUSED
        except (InvalidHashError, VerificationError, ValueError):
            return self._refuse(password)
        return PasswordCheck(ok=True, rehash=self._hasher.check_needs_rehash(stored))

    def _refuse(self, password: bytes) -> PasswordCheck:
        with contextlib.suppress(VerifyMismatchError):
            self._hasher.verify(self._dummy, password)
        return _REFUSED


def _dummy_hash(hasher: PasswordHasher) -> str:
    """A hash of the hasher's parameters without a known password: salt and digest are random."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (hasher.salt_len, hasher.hash_len)
    )
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"


def _as_bytes(password: str) -> bytes:
    # NFC: another keyboard may compose the same letters differently. A lone surrogate must not raise: it is part of a
    # password that is wrong, or equal to itself.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
