"""The scheduler: periodic work. Each job is caught and logged on its own, so that none stops another.

Every job is idempotent; missing one, or running it on several servers, does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from tornado.ioloop import PeriodicCallback

from pairing_server.errors import Unavailable
from pairing_server.request_context import system
from pairing_server.server.backend import Backend
from pairing_server.services.presence import TOUCH

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    every: float  # seconds
    work: Callable[[], Awaitable[object]]


class Scheduler:
    """`wall` and `monotonic` are the clocks; `every_second` is called with the latter's time."""

    def __init__(
        self,
        backend: Backend,
        wall: Callable[[], datetime],
        monotonic: Callable[[], float],
        every_second: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._backend = backend
        self._wall = wall
        self._monotonic = monotonic
        self._every_second = every_second
        self._started_at = -math.inf
        services, audit = backend.services, backend.services.audit
        expiry, settings = backend.expiry, backend.settings
        self.jobs: tuple[Job, ...] = (
            Job("tick", 1, self._tick),
            Job("answer audit tails", 1, lambda: audit.tail.answer_waiting(wall())),
            Job("flush audit", 1, lambda: backend.audit.flush(system(wall()))),
            Job("keep settings", 1, settings.keep),
            Job("expire pairings", 2, lambda: expiry.expire_pairings(system(wall()))),
            Job("close overdue channels", 2, lambda: expiry.close_overdue(monotonic(), system(wall()))),
            Job("poll revocations", 1, lambda: services.logins.poll_revocations(wall())),
            Job("poll pairing changes", 1, services.changes.poll),
            Job("beat", 1, services.nodes.beat),
            Job("settle the brute force guard", 1, self._settle_guard),
            Job("close disabled accounts", 1, lambda: backend.account_status.close_disabled(wall())),
            Job("reload keys", 1, lambda: services.signing_keys.reload_keys(system(wall()))),
            Job("count codes", 5, backend.code_limits.count_live),
            Job("note presence", TOUCH, self._note_presence),
            Job("close deserted pairings", 30, self._close_deserted),
            Job("release names", 30, lambda: expiry.release_names(wall())),
            Job("forget settings", 30, lambda: settings.forget_ended(wall())),
            Job("seal audit", 60, lambda: audit.sealer.seal(system(wall()))),
            Job("make audit partitions", 3600, audit.retention.make_partitions),
            Job("drop old audit events", 3600, self._drop_old_events),
            Job("prune", 3600, lambda: expiry.prune(wall())),
        )
        self._callbacks: list[PeriodicCallback] = []
        self._under_way: set[asyncio.Task[bool]] = set()
        # The jobs that wait for the database: logged once, not every second.
        self._waiting: set[str] = set()

    async def _tick(self) -> None:
        now = self._monotonic()
        self._backend.hub.check_timeouts(now)
        self._every_second(now)

    async def _settle_guard(self) -> None:
        guard = self._backend.guard
        await guard.settle(system(self._wall()))
        if guard.active(self._wall()):
            await self._backend.services.confirmations.send({}, self._wall())

    async def _drop_old_events(self) -> None:
        """What was dropped is excused once that is sealed."""
        audit = self._backend.services.audit
        if await audit.retention.drop_old(system(self._wall())):
            await audit.sealer.seal(system(self._wall()))

    async def _note_presence(self) -> None:
        services = self._backend.services
        strays = await services.presence.note_all(self._wall())
        await services.changes.compare(strays)

    async def _close_deserted(self) -> None:
        """No presence was noted while the database or the server was away, nor for the time that the wall clock has
        jumped over. So first the members that are connected now are noted."""
        steady = self._monotonic() - max(self._started_at, self._backend.database.breaker.back_at)
        if steady >= 2 * TOUCH:
            await self._note_presence()
            await self._backend.expiry.close_deserted(system(self._wall()))

    async def run(self, job: Job) -> bool:
        """Do one job now. False if it failed; that is logged, and it is tried again next time."""
        try:
            await job.work()
        except Unavailable as error:
            if job.name not in self._waiting:
                self._waiting.add(job.name)
                log.warning("job postponed", extra={"job": job.name, "reason": str(error)})
            return False
        except Exception as error:
            log.exception("job failed", extra={"job": job.name})
            kind, context = type(error).__name__, system(self._wall())
            self._backend.audit.enqueue_event(
                "system.error", "error", context, where=job.name, exception_class=kind
            )
            return False
        self._waiting.discard(job.name)
        return True

    def add(self, job: Job) -> None:
        """One job more; before the start."""
        self.jobs = (*self.jobs, job)

    def start(self) -> None:
        """Run every job in its time, never two of one job at once."""
        self._started_at = self._monotonic()
        for job in self.jobs:
            callback = PeriodicCallback(self._runner(job), job.every * 1000, jitter=0.1)
            callback.start()
            self._callbacks.append(callback)

    def _runner(self, job: Job) -> Callable[[], Awaitable[bool]]:
        def begin() -> Awaitable[bool]:
            task = asyncio.ensure_future(self.run(job))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            # PeriodicCallback waits for this before it calls again.
            return task

        return begin

    def stop(self) -> None:
        """Begin nothing more. What is under way goes on: see `settled`."""
        for callback in self._callbacks:
            callback.stop()
        self._callbacks.clear()

    async def settled(self) -> None:
        """Wait until no job is under way, so that none holds a database that is closed."""
        if self._under_way:
            await asyncio.wait(self._under_way)
