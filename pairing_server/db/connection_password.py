"""Where the password of a connection comes from: the URL, or a file or a command that is asked for each new connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from pairing_server.db.connection_parameters import PORT, ConnectionParameters, Place

# None: asyncpg looks for it in the password file of libpq.
Password = str | Callable[[], str | Awaitable[str]] | None


class PasswordSource:
    """`timeout`: seconds for the command."""

    def __init__(self, parameters: ConnectionParameters, timeout: float) -> None:
        self._values = parameters.values
        self._timeout = timeout
        self._running: dict[Place, asyncio.Task[str]] = {}

    def of(self, place: Place) -> Password:
        """The password for that server, or what asks for it; that raises ConnectionError."""
        values = self._values
        if "password" in values:
            return values["password"]
        if "password_file" in values:
            return partial(_read, Path(values["password_file"]))
        if "password_command" in values:
            return partial(self._ask, place)
        return None

    async def _ask(self, place: Place) -> str:
        """What the command prints. Connections to a server that are opened at the same time share one run of it."""
        if (running := self._running.get(place)) is None:
            running = self._running[place] = asyncio.ensure_future(self._run(place))
            running.add_done_callback(partial(self._ended, place))
        return await asyncio.shield(running)

    def _ended(self, place: Place, task: asyncio.Task[str]) -> None:
        del self._running[place]
        if not task.cancelled():
            task.exception()  # retrieved: it may be that no connection waits any more

    async def _run(self, place: Place) -> str:
        host, port = place
        of_connection = {
            "PGHOST": host or "",
            "PGPORT": str(port or PORT),
            "PGUSER": self._values.get("user", ""),
            "PGDATABASE": self._values.get("dbname", ""),
        }
        process = await asyncio.create_subprocess_shell(
            self._values["password_command"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **of_connection},
        )
        try:
            async with asyncio.timeout(self._timeout):
                output, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        password = output.decode(errors="replace").partition("\n")[0].rstrip("\r")
        if process.returncode or not password:
            raise ConnectionError(
                f"PAIRING_DATABASE_PASSWORD_COMMAND gave no password (its status is {process.returncode});"
                " run it by hand, as the server's user, to see why"
            )
        return password


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConnectionError(
            f"the file with the database's password, {path}, cannot be read: {reason}"
        ) from None
