"""The database goes away, in every way it can: how soon whoever needs it is told, how soon all is well again, and what
live channels notice. Real servers of PostgreSQL, and the tests' fault proxy before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.connections import close_all, take_all
from bench.ours import Site
from bench.outages import Fault, Talk, Trial, superuser
from bench.patient import Watched
from bench.processes import Processes
from tests.faults.cluster import Postgres, primary_and_standby
from tests.faults.proxy import FaultProxy

USERS, PAIRS = 240, 20


def run(
    processes: Processes,
    folder: Path,
    core: int,
    seconds: float,
    blackhole: float,
    say: Callable[[str], None],
) -> int:
    place = folder / "cluster"
    place.mkdir()
    with primary_and_standby(place) as (primary, standby):
        asyncio.run(superuser(primary, "CREATE ROLE pairing LOGIN", "CREATE DATABASE pairing OWNER pairing"))
        site = Site(processes, folder, core, primary.url("pairing", "pairing"))
        users = [user.access for user in site.users(USERS)]
        every = _Every(site, folder, core, users, primary, standby, say)
        return 0 if asyncio.run(every.run(seconds, blackhole)) else 1


@dataclass(slots=True)
class _Every:
    """All the faults, one after another."""

    site: Site
    folder: Path
    core: int
    users: Sequence[str]
    primary: Postgres
    standby: Postgres
    say: Callable[[str], None]

    async def run(self, seconds: float, blackhole: float) -> bool:
        ways = [FaultProxy(port=0) for _ in range(2)]
        for way, server in zip(ways, (self.primary, self.standby), strict=True):
            way.target = ("127.0.0.1", server.port)
            await way.start()
        try:
            alone = self._of_one(ways[0], seconds, blackhole)
            good = await self._suffered(ways[:1], self.primary, alone)
            follow = Fault("read-only, until its standby takes over", self._demote, self._promote, seconds)
            return await self._suffered(ways, self.standby, [follow]) and good
        finally:
            for way in ways:
                await way.close()

    def _of_one(self, way: FaultProxy, seconds: float, blackhole: float) -> list[Fault]:
        async def heal() -> None:
            way.heal()

        async def delay() -> None:
            way.delay(2.0)

        async def reset() -> None:
            way.reset()

        async def silence() -> None:
            way.blackhole()

        async def no_connections() -> None:
            ending_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pairing'"
            await superuser(self.primary, "ALTER DATABASE pairing CONNECTION LIMIT 0", ending_all)

        async def connections() -> None:
            await superuser(self.primary, "ALTER DATABASE pairing CONNECTION LIMIT -1")

        async def writable() -> None:
            await superuser(
                self.primary,
                "ALTER SYSTEM RESET default_transaction_read_only",
                "SELECT pg_reload_conf()",
            )

        return [
            Fault(
                "stopped",
                lambda: asyncio.to_thread(self.primary.stop),
                lambda: asyncio.to_thread(self.primary.start),
                seconds,
            ),
            Fault("reset", reset, heal, seconds),
            Fault("cut off without a reset", silence, heal, blackhole),
            Fault("two seconds away", delay, heal, seconds),
            Fault("no connections left", no_connections, connections, seconds),
            Fault("read-only", self._demote, writable, seconds),
        ]

    async def _demote(self) -> None:
        await superuser(
            self.primary,
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "SELECT pg_reload_conf()",
        )

    async def _promote(self) -> None:
        await asyncio.to_thread(self.standby.promote)

    async def _suffered(self, ways: Sequence[FaultProxy], last: Postgres, faults: Sequence[Fault]) -> bool:
        """Let a server that knows these ways to the database suffer the faults; whether it has done well."""
        hosts = ",".join(f"127.0.0.1:{way.port}" for way in ways)
        url = f"postgresql://pairing@{hosts}/pairing"
        server = await asyncio.to_thread(
            Watched, self.site, self.folder, self.core, DATABASE_URL=url, REGISTRATION="open"
        )
        pairs = await asyncio.to_thread(self.site.pairs_at, server.port, PAIRS, 220)
        talk = Talk(await take_all([seat for pair in pairs for seat in pair]))
        talking = asyncio.ensure_future(talk.go_on())
        # The timer sees that all these accounts are enabled.
        await asyncio.sleep(2)
        good = True
        for fault in faults:
            trial = Trial(server.port, self.users, talk)
            good = await trial.suffer(fault, ways, last, self.say) and good
        talking.cancel()
        close_all(talk.connections)
        self.site.processes.stop(server.process)
        return good
