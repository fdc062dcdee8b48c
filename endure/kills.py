"""kill -9 at random moments under traffic, the first and every third time PostgreSQL as well: the server starts again by itself, no
code has two winners, devices find their channel and their settings, and the audit log verifies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg

from harness.pairing_database import ADD_USERS, RAISED_LIMITS
from harness.processes import port_of, reserved_port
from harness.program import environment, program
from pairing_server.client import ClientError, PairingClient, ServerError
from pairing_server.client.device import DeviceType
from pairing_server.security.keys import format_keys, generate_key
from pairing_server.security.tokens import Tokens

PHONES = 4
# A phone that loses a race has typed a wrong code, and ten of those lock an account: each race has an account of its own.
ACCOUNTS = 3000
START_TIMEOUT_SECONDS = 60.0
# Settings documents are saved about once a second.
SAVED_PROBE_SECONDS = 0.1
FAILURES = (ClientError, OSError)


class Server:
    """The server with its embedded database in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Reserved, so that the port stays the server's own after a kill.
        self._reserved = reserved_port()
        port = port_of(self._reserved)
        self.url = f"http://127.0.0.1:{port}"
        keys = [generate_key()]
        self._tokens = Tokens(keys)
        own = environment(PORT=str(port), DATA_DIR=str(folder / "data"), JWT_KEYS=format_keys(keys))
        self._environ = {**own, **RAISED_LIMITS, "PAIRING_TRUSTED_PROXIES": ""}
        self._database = f"postgresql://postgres@/pairing?host={folder}/data/postgres"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server has not been started")
        return self._process

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                program("serve"), cwd=self.folder, env=self._environ, stdout=log, stderr=log
            )

    async def add_accounts(self, count: int) -> list[str]:
        """The access tokens of new accounts."""
        ids = [uuid4() for _ in range(count)]
        connection = await asyncpg.connect(self._database)
        try:
            await connection.execute(ADD_USERS, ids)
        finally:
            await connection.close()
        now = datetime.now(UTC)
        return [self._tokens.issue_access(str(id_), now).token for id_ in ids]

    async def await_saved(self, number: int) -> None:
        """Return once the settings document of that round is in the database."""
        connection = await asyncpg.connect(self._database)
        try:
            while True:
                documents = await connection.fetch("SELECT document FROM channel_settings")
                if any(json.loads(row["document"]).get("round") == number for row in documents):
                    return
                await asyncio.sleep(SAVED_PROBE_SECONDS)
        finally:
            connection.terminate()

    def kill(self, *, postgres: bool) -> None:
        """kill -9; `postgres`: also all processes of its PostgreSQL."""
        self.process.kill()
        if postgres:
            pid = int((self.folder / "data/postgres/postmaster.pid").read_text().split()[0])
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for one in (pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Its exit status."""
        self.process.terminate()
        return self.process.wait(60)

    def verify_audit_log(self) -> tuple[int, str]:
        """The exit status of `audit verify`, and the last line that it printed."""
        done = subprocess.run(
            program("audit", "verify"),
            check=False,
            cwd=self.folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, (done.stdout.strip().splitlines() or [""])[-1]

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reserved.close()


def check(folder: Path, rounds: int, seed: int, say: Callable[[str], None]) -> bool:
    logging.disable(logging.ERROR)  # requests that a kill has ended
    server = Server(folder)
    try:
        return asyncio.run(_Kills(server, random.Random(seed), say).run(rounds))
    finally:
        server.close()
        logging.disable(logging.NOTSET)


@dataclass(slots=True)
class Race:
    """One code, and the phones that redeem it. `answered`: those that know the outcome."""

    name: str
    code: str
    access: str
    answered: set[int] = field(default_factory=set)
    winners: set[int] = field(default_factory=set)


class _Kills:
    def __init__(self, server: Server, chance: random.Random, say: Callable[[str], None]) -> None:
        self._server = server
        self._chance = chance
        self._say = say
        self._accounts: list[str] = []
        self._races: list[Race] = []
        self._raced = 0
        self._last_saved = 0
        self._repeated = 0
        self._wrong: list[str] = []
        self._messages = 0

    def _client(self, kind: DeviceType, access: str = "", session_id: str | None = None) -> PairingClient:
        return PairingClient(
            self._server.url, kind, session_id=session_id, access_token=access or None, timeout=10
        )

    async def run(self, rounds: int) -> bool:
        starts = [await self._start()]
        self._accounts = await self._server.add_accounts(ACCOUNTS)
        access = self._accounts.pop()
        with self._client("desktop", access) as desktop, self._client("mobile", access) as mobile:
            code = await desktop.generate_code()
            await mobile.redeem(code.code)
            for number in range(1, rounds + 1):
                starts += [await self._round(number, desktop, mobile, code.channel)]
        self._say(f"started {len(starts)} times, ready after {min(starts):.1f} to {max(starts):.1f} s")
        self._say(
            f"{self._raced} codes with {PHONES} phones each, {self._repeated} phones tried again after a kill;"
            f" {self._messages} messages"
        )
        status = self._server.stop()
        verified, last = self._server.verify_audit_log()
        self._say(f"stopped with {status}; audit verify: {verified}, {last}")
        for wrong in self._wrong:
            self._say(wrong)
        return not (self._wrong or status or verified)

    async def _start(self) -> float:
        """Seconds until it was ready."""
        self._server.start()
        began = time.monotonic()
        with self._client("desktop") as client:
            while time.monotonic() - began < START_TIMEOUT_SECONDS:
                with contextlib.suppress(*FAILURES):
                    await client.readyz()
                    return time.monotonic() - began
                await asyncio.sleep(0.05)
        raise RuntimeError(f"it does not start: {(self._server.folder / 'log').read_text()[-2000:]}")

    async def _round(self, number: int, desktop: PairingClient, mobile: PairingClient, channel: str) -> float:
        """Traffic, a kill, and a start; the seconds of the start."""
        work = [
            asyncio.ensure_future(self._send_messages(desktop, mobile, channel, number)),
            *(asyncio.ensure_future(self._race(f"{number}-{many}")) for many in range(3)),
        ]
        await asyncio.sleep(self._chance.uniform(0.1, 2.5))
        await asyncio.to_thread(self._server.kill, postgres=number % 3 == 1)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        seconds = await self._start()
        await self._finish_races()
        return seconds

    async def _send_messages(
        self, desktop: PairingClient, mobile: PairingClient, channel: str, number: int
    ) -> None:
        """Come back to the same channel, find the settings of an earlier round, and send messages."""
        saving: asyncio.Task[None] | None = None
        opened = contextlib.ExitStack()
        try:
            # It may be killed between the two.
            sender = await desktop.connect()
            opened.callback(sender.drop)
            receiver = await mobile.connect()
            opened.callback(receiver.drop)
            joined = await sender.join(channel)
            await receiver.join(channel)
            last = int(joined["settings"].get("round", 0))
            if not self._last_saved <= last < number:
                self._wrong.append(f"round {number}: the settings are those of round {last}")
            await sender.sync_settings({"round": number})
            saving = asyncio.ensure_future(self._note_saved(number))
            for count in range(10**6):
                await sender.send({"n": count})
                await receiver.expect("channel_message")
                self._messages += 1
                await asyncio.sleep(0.02)
        except ServerError as error:
            self._wrong.append(f"round {number}: {error}")
        except FAILURES:
            pass  # killed
        finally:
            if saving is not None:
                saving.cancel()
                await asyncio.wait([saving])
            opened.close()

    async def _note_saved(self, number: int) -> None:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # killed
            await self._server.await_saved(number)
            self._last_saved = number

    async def _race(self, name: str) -> None:
        """One code after another, each with several phones at once."""
        with contextlib.suppress(*FAILURES):
            for count in range(10**6):
                access = self._accounts.pop()
                with self._client("desktop", access, f"desktop-{name}-{count}") as desktop:
                    code = (await desktop.generate_code()).code
                race = Race(f"{name}-{count}", code, access)
                self._races.append(race)
                await asyncio.gather(*(self._redeem(race, phone) for phone in range(PHONES)))

    async def _redeem(self, race: Race, phone: int) -> None:
        with self._client("mobile", race.access, f"mobile-{race.name}-{phone}") as mobile:
            try:
                await mobile.redeem(race.code)
            except ServerError as error:
                if error.code == "INVALID_CODE":
                    race.answered.add(phone)
                elif error.code != "UNAVAILABLE":
                    self._wrong.append(f"race {race.name}: {error}")
            except FAILURES:
                pass  # killed: the outcome is unknown
            else:
                race.answered.add(phone)
                race.winners.add(phone)

    async def _finish_races(self) -> None:
        """Phones without an answer try again: one that had won wins again, else one of them wins now."""
        for race in self._races:
            unknown = set(range(PHONES)) - race.answered
            self._repeated += len(unknown)
            for phone in sorted(unknown):
                await self._redeem(race, phone)
            if len(race.winners) != 1:
                self._wrong.append(f"race {race.name} has {len(race.winners)} winners")
        self._raced += len(self._races)
        self._races.clear()
