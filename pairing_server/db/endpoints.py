"""The servers that a database's URL names, and a connection to the one that takes writes."""

from __future__ import annotations

import asyncio
import io
import random
import secrets
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import asyncpg

from pairing_server.db.connection_parameters import SYSTEM, Place, read
from pairing_server.db.connection_password import PasswordSource

# How a connection fails.
_FAILURES = (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InternalClientError)
# asyncpg takes these from a URL only.
_TLS = (
    *("sslmode", "sslnegotiation", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
)
_KEEPALIVE = {
    "keepalives_idle": socket.TCP_KEEPIDLE,
    "keepalives_interval": socket.TCP_KEEPINTVL,
    "keepalives_count": socket.TCP_KEEPCNT,
    "tcp_user_timeout": socket.TCP_USER_TIMEOUT,
}


# What a pooler answers where a connection begins with settings that it does not know.
_REFUSED = "unsupported startup parameter"
_NOT_BY_TRANSACTION = (
    "The database is reached through a pooler that gives each transaction another connection, and the server keeps things in"
    " its connections. Write pool_mode = session for PgBouncer, or the address of PostgreSQL itself (Supabase: port 5432;"
    " Neon: the host without -pooler)."
)


class PoolerError(Exception):
    """A pooler between here and PostgreSQL cannot be used as it is; the text says what to change."""


class Endpoints:
    """Where connections come from. With several hosts, each gets its share of the time, or one that does not answer at all
    would use up that of the others; `connect_timeout` in the URL is the time for each."""

    def __init__(
        self, url: str, *, timeout: float, command_timeout: float | None = None, **session: str
    ) -> None:
        """`timeout`: seconds for a connection, all hosts together, where the URL does not say. `session`: settings that
        each connection begins with; `application_name` only where the URL gives no other.

        Raises ConnectionParameterError.
        """
        parameters = read(url)
        self._values = values = parameters.values
        self.places: list[Place] = list(parameters.places)
        several = len(self.places) > 1
        # Which kind of server is acceptable; None for any.
        self.wanted = values.get("target_session_attrs") or ("read-write" if several else None)
        given = float(values.get("connect_timeout", 0))
        self._timeout = given if given > 0 else timeout / len(self.places)
        ours = session.pop("application_name", None)
        name = values.get("application_name") or values.get("fallback_application_name") or ours
        # PgBouncer takes no other settings with which a connection starts; these are SET then.
        started = {"application_name": name, "options": values.get("options")}
        self._session = "; ".join(f"SET {name} = '{value}'" for name, value in session.items())
        self._options: dict[str, Any] = {
            "user": values.get("user"),
            "database": values.get("dbname"),
            "passfile": values.get("passfile"),
            "krbsrvname": values.get("krbsrvname"),
            "gsslib": values.get("gsslib"),
            "command_timeout": command_timeout,
            "server_settings": {name: value for name, value in started.items() if value},
        }
        self._password = PasswordSource(parameters, self.timeout)
        self._checked = False

    @property
    def at(self) -> str:
        """Where the servers are, for people."""
        shown = [host or "this machine" if port is None else f"{host}:{port}" for host, port in self.places]
        return ",".join(shown)

    @property
    def timeout(self) -> float:
        """Seconds that a connection may take, all hosts together."""
        return self._timeout * len(self.places)

    async def absent(self) -> list[str]:
        """Those of them, as host:port, that take no connection at all, with writes or without."""
        found = []
        for host, port in self.places:
            try:
                made = await self._reach((host, port), "any")
            except _FAILURES:
                found.append(f"{host}:{port}")
            else:
                await made.close()
        return found

    async def _reach(self, place: Place, wanted: str | None) -> asyncpg.Connection:
        host, port = place
        try:
            async with asyncio.timeout(self._timeout):
                made = await asyncpg.connect(
                    host=host,
                    port=port,
                    password=self._password.of(place),
                    target_session_attrs=wanted,
                    timeout=self._timeout,
                    **self._tls(host),
                    **self._options,
                )
                try:
                    keep_alive(made._transport.get_extra_info("socket"), self._values)
                    if self._session:
                        await made.execute(self._session)
                except BaseException:
                    made.terminate()
                    raise
        except asyncpg.ProtocolViolationError as error:
            if _REFUSED not in str(error):
                raise
            raise PoolerError(
                f"PgBouncer takes no `options` ({error}): set them for the role, for example ALTER ROLE … SET search_path = …,"
                " and leave them out of the URL"
            ) from None
        except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError):
            raise PoolerError(_NOT_BY_TRANSACTION) from None
        except asyncpg.InterfaceError as error:
            # What the server asks for asyncpg has not got.
            raise ConnectionError(str(error)) from error
        return made

    async def _refuse_transaction_pooling(self, made: asyncpg.Connection, place: Place) -> None:
        """Raises PoolerError, and ends the connection, if what it sets is seen by another connection: then neither is one."""
        try:
            async with asyncio.timeout(self._timeout):
                if int(await _answer(made, "pg_backend_pid()")) == made.get_server_pid():
                    self._checked = True
                    return
                # It goes through a pooler, which has numbers of its own.
                mark = secrets.token_hex()
                await made.execute(f"SET pairing.connection = '{mark}'")
                other = await self._reach(place, None)
                try:
                    shared = await _answer(other, "current_setting('pairing.connection', true)") == mark
                finally:
                    other.terminate()
        except BaseException:
            made.terminate()
            raise
        if shared:
            made.terminate()
            raise PoolerError(_NOT_BY_TRANSACTION)
        self._checked = True

    def _tls(self, host: str | None) -> dict[str, Any]:
        """asyncpg's arguments."""
        if (host or "").startswith("/"):
            return {"ssl": False}
        values = {name: self._values[name] for name in _TLS if name in self._values}
        if values.get("sslrootcert") != SYSTEM:
            return {"dsn": f"postgresql://?{urlencode(values)}"} if values else {}
        context = ssl.create_default_context()
        if "sslcert" in values:
            context.load_cert_chain(values["sslcert"], values.get("sslkey"), values.get("sslpassword", ""))
        return {"ssl": context, "direct_tls": values.get("sslnegotiation") == "direct"}

    async def connect(self) -> asyncpg.Connection:
        """A connection to the first host that will do; the one that did last time is asked first.

        Raises what asyncpg does; of several failures, one that a server has answered. Raises PoolerError.
        """
        failure: Exception | None = None
        places = list(self.places)
        if self._values.get("load_balance_hosts") == "random":
            random.shuffle(places)
        for wanted in ("standby", "any") if self.wanted == "prefer-standby" else (self.wanted,):
            for place in places:
                try:
                    made = await self._reach(place, wanted)
                except _FAILURES as error:
                    if failure is None or isinstance(failure, OSError):
                        failure = error
                    continue
                self.places.remove(place)
                self.places.insert(0, place)
                if not self._checked:
                    await self._refuse_transaction_pooling(made, place)
                return made
        raise failure or OSError("the URL names no host")


def keep_alive(connected: socket.socket, values: Mapping[str, str]) -> None:
    """As libpq does it: on, unless it is switched off. `values`: of libpq's parameters."""
    if connected.family == socket.AF_UNIX or values.get("keepalives") == "0":
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _KEEPALIVE.items():
        if (number := int(values.get(name, 0))) > 0:
            connected.setsockopt(socket.IPPROTO_TCP, option, number)


async def _answer(connection: asyncpg.Connection, expression: str) -> str:
    """Its value, without a prepared statement."""
    output = io.BytesIO()
    await connection.copy_from_query(f"SELECT {expression}", output=output)
    return output.getvalue().decode().rstrip("\n")
