"""kill -9 at random moments under traffic, every third time PostgreSQL as well: it starts again by itself, no code has
two winners, devices find their channel and their settings, and the audit log verifies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg

from bench.ours import ADD_USERS, RAISED
from pairing_server.client import ClientError, PairingClient, ServerError
from pairing_server.client.device import DeviceType
from pairing_server.security.keys import format_keys, generate_key
from pairing_server.security.tokens import Tokens

PHONES = 4
# Whoever loses a race has typed a wrong code, and ten of those lock an account: so each race is another account's.
ACCOUNTS = 3000
START_TIMEOUT = 60.0
# Settings are written behind, about once a second. Seconds between two looks at what is written.
LOOK_EVERY = 0.1
FAILURES = (ClientError, OSError)


class Server:
    """The server with a database of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Its own in between, too: bound, so that nobody else is given the port; the server can listen on it.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        port = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PAIRING_")}
        root = str(Path(__file__).resolve().parent.parent)
        self._environ = {**inherited, **RAISED, "PAIRING_TRUSTED_PROXIES": "", "PYTHONPATH": root}
        self._environ |= {"PAIRING_PORT": str(port), "PAIRING_DATA_DIR": str(folder / "data")}
        keys = [generate_key()]
        self._environ["PAIRING_JWT_KEYS"] = format_keys(keys)
        self._tokens = Tokens(keys)
        self._database = f"postgresql://postgres@/pairing?host={folder}/data/postgres"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pairing_server", *arguments]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command("serve"), cwd=self.folder, env=self._environ, stdout=log, stderr=log
            )

    async def accounts(self, count: int) -> list[str]:
        """The access tokens of new accounts."""
        ids = [uuid4() for _ in range(count)]
        connection = await asyncpg.connect(self._database)
        try:
            await connection.execute(ADD_USERS, ids)
        finally:
            await connection.close()
        now = datetime.now(UTC)
        return [self._tokens.issue_access(str(id_), now).token for id_ in ids]

    async def until_kept(self, number: int) -> None:
        """Return once the settings of that round are safe in the database."""
        connection = await asyncpg.connect(self._database)
        try:
            while True:
                documents = await connection.fetch("SELECT document FROM channel_settings")
                if any(json.loads(row["document"]).get("round") == number for row in documents):
                    return
                await asyncio.sleep(LOOK_EVERY)
        finally:
            connection.terminate()

    def kill(self, *, postgres: bool) -> None:
        """Without a word; `postgres`: and its PostgreSQL with all its processes."""
        assert self._process is not None
        self._process.kill()
        if postgres:
            pid = int((self.folder / "data/postgres/postmaster.pid").read_text().split()[0])
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for one in (pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def says(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(*arguments),
            check=False,
            cwd=self.folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._held.close()


def run(folder: Path, rounds: int, seed: int, say: Callable[[str], None]) -> int:
    logging.disable(logging.ERROR)  # requests that a kill has ended
    server = Server(folder)
    try:
        return 0 if asyncio.run(_Story(server, random.Random(seed), say).run(rounds)) else 1
    finally:
        server.end()


@dataclass(slots=True)
class Race:
    """One code, and the phones that want it. `told`: those that know what came of it."""

    name: str
    code: str
    access: str
    told: set[int] = field(default_factory=set)
    winners: set[int] = field(default_factory=set)


class _Story:
    def __init__(self, server: Server, drawn: random.Random, say: Callable[[str], None]) -> None:
        self._server = server
        self._drawn = drawn
        self._say = say
        self._accounts: list[str] = []
        self._races: list[Race] = []
        self._raced = 0
        # The settings of this round are safe.
        self._kept = 0
        self._asked_again = 0
        self._wrong: list[str] = []
        self._messages = 0

    def _client(self, kind: DeviceType, access: str = "", session_id: str | None = None) -> PairingClient:
        return PairingClient(
            self._server.url, kind, session_id=session_id, access_token=access or None, timeout=10
        )

    async def run(self, rounds: int) -> bool:
        starts = [await self._started()]
        self._accounts = await self._server.accounts(ACCOUNTS)
        access = self._accounts.pop()
        with self._client("desktop", access) as desktop, self._client("mobile", access) as mobile:
            code = await desktop.generate_code()
            await mobile.redeem(code.code)
            for number in range(1, rounds + 1):
                starts += [await self._round(number, desktop, mobile, code.channel)]
        self._say(f"started {len(starts)} times, ready after {min(starts):.1f} to {max(starts):.1f} s")
        self._say(
            f"{self._raced} codes were raced for by {PHONES} phones each, {self._asked_again} phones asked again"
            f" after a kill; {self._messages} messages"
        )
        status = self._server.stop()
        verified, told = self._server.says("audit", "verify")
        self._say(
            f"stopped with {status}; audit verify: {verified}, {told.strip().splitlines()[-1] if told else ''}"
        )
        for wrong in self._wrong:
            self._say(wrong)
        return not (self._wrong or status or verified)

    async def _started(self) -> float:
        self._server.start()
        began = time.monotonic()
        with self._client("desktop") as client:
            while time.monotonic() - began < START_TIMEOUT:
                with contextlib.suppress(*FAILURES):
                    await client.readyz()
                    return time.monotonic() - began
                await asyncio.sleep(0.05)
        raise RuntimeError(f"it does not start: {(self._server.folder / 'log').read_text()[-2000:]}")

    async def _round(self, number: int, desktop: PairingClient, mobile: PairingClient, channel: str) -> float:
        work = [
            asyncio.ensure_future(self._talk(desktop, mobile, channel, number)),
            *(asyncio.ensure_future(self._redeem(f"{number}-{many}")) for many in range(3)),
        ]
        await asyncio.sleep(self._drawn.uniform(0.1, 2.5))
        await asyncio.to_thread(self._server.kill, postgres=number % 3 == 0)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        seconds = await self._started()
        await self._ask_again()
        return seconds

    async def _talk(self, desktop: PairingClient, mobile: PairingClient, channel: str, number: int) -> None:
        """Come back to the same channel, find the settings of the rounds before, and talk."""
        shown, held = await desktop.connect(), await mobile.connect()
        looking: asyncio.Task[None] | None = None
        try:
            joined = await shown.join(channel)
            await held.join(channel)
            last = int(joined["settings"].get("round", 0))
            if not self._kept <= last < number:
                self._wrong.append(f"round {number}: the settings are those of round {last}")
            await shown.sync_settings({"round": number})
            looking = asyncio.ensure_future(self._note_kept(number))
            for count in range(10**6):
                await shown.send({"n": count})
                await held.expect("channel_message")
                self._messages += 1
                await asyncio.sleep(0.02)
        except ServerError as error:
            self._wrong.append(f"round {number}: {error}")
        except FAILURES:
            pass  # killed
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.wait([looking])
            shown.drop()
            held.drop()

    async def _note_kept(self, number: int) -> None:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # killed
            await self._server.until_kept(number)
            self._kept = number

    async def _redeem(self, name: str) -> None:
        """Again and again a code, and phones that race for it."""
        with contextlib.suppress(*FAILURES):
            for count in range(10**6):
                access = self._accounts.pop()
                with self._client("desktop", access, f"desktop-{name}-{count}") as desktop:
                    code = (await desktop.generate_code()).code
                race = Race(f"{name}-{count}", code, access)
                self._races.append(race)
                await asyncio.gather(*(self._try(race, phone) for phone in range(PHONES)))

    async def _try(self, race: Race, phone: int) -> None:
        with self._client("mobile", race.access, f"mobile-{race.name}-{phone}") as mobile:
            try:
                await mobile.redeem(race.code)
            except ServerError as error:
                if error.code == "INVALID_CODE":
                    race.told.add(phone)
                elif error.code != "UNAVAILABLE":
                    self._wrong.append(f"race {race.name}: {error}")
            except FAILURES:
                pass  # killed: it does not know
            else:
                race.told.add(phone)
                race.winners.add(phone)

    async def _ask_again(self) -> None:
        """Phones that do not know try again: whoever had won is told so now, else one of them wins now."""
        for race in self._races:
            if unknown := set(range(PHONES)) - race.told:
                self._asked_again += len(unknown)
                for phone in sorted(unknown):
                    await self._try(race, phone)
            if len(race.winners) != 1:
                self._wrong.append(f"race {race.name} has {len(race.winners)} winners")
        self._raced += len(self._races)
        self._races.clear()
