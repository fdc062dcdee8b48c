"""The database becomes unavailable in every way: how soon clients are refused, how soon all is well again, and what
live channels notice. Real PostgreSQL servers, with the fault proxy before them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from endure.outage import Action, Fault, Messages, Outage, as_superuser
from endure.run import Run
from endure.server import Server
from harness.fault_proxy import FaultProxy
from harness.load_client import both, close_all, connect_all
from harness.pairing_database import PairingDatabase
from harness.postgres import Postgres, primary_and_standby

USERS, PAIRS = 240, 20


def check(run: Run, seconds: float, blackhole_seconds: float) -> bool:
    """Whether the server did well in every fault. `seconds`: of each, once it is known."""
    place = run.folder / "cluster"
    place.mkdir()
    with primary_and_standby(place) as (primary, standby):
        asyncio.run(
            as_superuser(primary, "CREATE ROLE pairing LOGIN", "CREATE DATABASE pairing OWNER pairing")
        )
        with PairingDatabase(run.folder, primary.url("pairing", "pairing")) as database:
            accesses = [user.access for user in database.add_users(USERS)]
            faults = _Faults(run, database, accesses, primary, standby)
            return asyncio.run(faults.run(seconds, blackhole_seconds))


@dataclass(frozen=True, slots=True)
class _Faults:
    """All the faults, one after another."""

    context: Run
    database: PairingDatabase
    accesses: Sequence[str]
    primary: Postgres
    standby: Postgres

    async def run(self, seconds: float, blackhole_seconds: float) -> bool:
        proxies = [FaultProxy(port=server.port) for server in (self.primary, self.standby)]
        for proxy in proxies:
            await proxy.start()
        try:
            alone = self._of_one_server(proxies[0], seconds, blackhole_seconds)
            good = await self._endure(proxies[:1], self.primary, alone)
            failover = Fault("read-only, until its standby takes over", self._demote, self._promote, seconds)
            return await self._endure(proxies, self.standby, [failover]) and good
        finally:
            for proxy in proxies:
                await proxy.close()

    def _of_one_server(self, proxy: FaultProxy, seconds: float, blackhole_seconds: float) -> list[Fault]:
        async def heal() -> None:
            proxy.heal()

        async def reset() -> None:
            proxy.reset()

        async def blackhole() -> None:
            proxy.blackhole()

        async def delay() -> None:
            proxy.delay(2.0)

        stop, start = (partial(asyncio.to_thread, act) for act in (self.primary.stop, self.primary.start))
        fill = self._sql(
            "ALTER DATABASE pairing CONNECTION LIMIT 0",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pairing'",
        )
        free = self._sql("ALTER DATABASE pairing CONNECTION LIMIT -1")
        writable = self._sql("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
        return [
            Fault("stopped", stop, start, seconds),
            Fault("reset", reset, heal, seconds),
            Fault("cut off without a reset", blackhole, heal, blackhole_seconds),
            Fault("two seconds away", delay, heal, seconds),
            Fault("no connections left", fill, free, seconds),
            Fault("read-only", self._demote, writable, seconds),
        ]

    def _sql(self, *statements: str) -> Action:
        return partial(as_superuser, self.primary, *statements)

    async def _demote(self) -> None:
        await self._sql("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")()

    async def _promote(self) -> None:
        await asyncio.to_thread(self.standby.promote)

    async def _endure(self, proxies: Sequence[FaultProxy], last: Postgres, faults: Sequence[Fault]) -> bool:
        """Whether a server that reaches its database through these proxies does well in the faults."""
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        url = f"postgresql://pairing@{hosts}/pairing"
        server = await asyncio.to_thread(
            Server, self.context, self.database, DATABASE_URL=url, REGISTRATION="open"
        )
        pairs = await asyncio.to_thread(self.database.add_pairs, server.port, PAIRS, 220)
        messages = Messages(await connect_all(both(pairs)))
        sending = asyncio.ensure_future(messages.send_all())
        # A periodic job reads that these accounts are enabled.
        await asyncio.sleep(2)
        good = True
        for fault in faults:
            outage = Outage(server.port, self.accesses, messages)
            good = await outage.run(fault, proxies, last, self.context.say) and good
        sending.cancel()
        close_all(messages.connections)
        self.context.processes.stop(server.process)
        return good
