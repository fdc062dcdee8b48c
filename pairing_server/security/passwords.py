"""Passwords: hashing and checking them, off the event loop and within bounds.

How often somebody may try is decided in `limits.py`. A hash takes tens of milliseconds and 19 MiB by
design: on the event loop it would hold up every live channel, and without a bound it would fill the memory.
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
class Verdict:
    """`ok`: the password fits. `rehash`: it does, and the stored hash has outdated parameters."""

    ok: bool
    rehash: bool


_REFUSED = Verdict(ok=False, rehash=False)


class Passwords:
    """argon2id in `threads` threads of its own, with at most `queue` calls waiting for one.

    Memory: `threads` × 19 MiB. Raises Unavailable when the queue is full, and after `close`.
    """

    def __init__(self, *, threads: int = 2, queue: int = 32, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._room = threading.Semaphore(threads + queue)
        self._dummy = _unknown(self._hasher)

    async def hash(self, password: str) -> str:
        """The hash to store, with its parameters and salt."""
        return await self._run(lambda: self._hasher.hash(_as_bytes(password)))

    async def verify(self, stored: str | None, password: str) -> Verdict:
        """Whether the password fits the stored hash.

        None (no such user) and a stored text that is no hash are refused after the same work as a wrong
        password, so that the time does not tell which names exist.
        """
        return await self._run(lambda: self._verify(stored, _as_bytes(password)))

    def close(self) -> None:
        """Finish what was taken on (at most a few hundred milliseconds), take no more."""
        self._pool.shutdown(wait=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise Unavailable(retry_after_s=RETRY_AFTER_S)
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            # The pool is closed: the server is going down, and the room does not matter any more.
            raise Unavailable(retry_after_s=RETRY_AFTER_S) from None
        # Given back when the work is over, not when the caller stops waiting for it.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: Future[T]) -> None:
        self._room.release()

    def _verify(self, stored: str | None, password: bytes) -> Verdict:
        if stored is None:
            return self._refuse(password)
        try:
            self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return _REFUSED
        except (InvalidHashError, VerificationError, ValueError):
            return self._refuse(password)
        return Verdict(ok=True, rehash=self._hasher.check_needs_rehash(stored))

    def _refuse(self, password: bytes) -> Verdict:
        with contextlib.suppress(VerifyMismatchError):
            self._hasher.verify(self._dummy, password)
        return _REFUSED


def _unknown(hasher: PasswordHasher) -> str:
    """A hash of the hasher's parameters whose password nobody knows: salt and digest are random."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (hasher.salt_len, hasher.hash_len)
    )
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"


def _as_bytes(password: str) -> bytes:
    # NFC: the same word typed on another keyboard may come composed differently. A lone surrogate is no
    # reason to fail: it is simply part of a password that fits nothing, or only itself.
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
