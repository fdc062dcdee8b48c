"""The servers that a database's URL names, and a connection to the one that takes writes."""

from __future__ import annotations

from typing import Any

import asyncpg
from sqlalchemy.engine import URL, make_url

PORT = 5432
# How a connection fails.
_FAILURES = (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InternalClientError)


def parse(url: str) -> list[URL]:
    """The URL for SQLAlchemy, one for each of its hosts (`postgresql://a:1,b:2/name`); each has all the rest."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    return [
        make_url(f"{scheme}://{login}{at}{host}{slash}{path}").set(drivername="postgresql+asyncpg")
        for host in hosts.split(",")
    ]


class Endpoints:
    """Where connections come from. With several hosts, each gets its share of the time, or one that does not answer at all
    would use up that of the others."""

    def __init__(self, url: str, *, timeout: float, **options: Any) -> None:
        """`timeout`: seconds for a connection, all hosts together; `options`: asyncpg's."""
        self.places: list[tuple[str | None, int | None]] = []
        given: dict[str, Any] = {}
        for one in parse(url):
            given = dict(one.get_dialect()().create_connect_args(one)[1])
            host, port = given.pop("host", None), given.pop("port", None)
            # SQLAlchemy's own way to name several: ?host=a:1&host=b:2
            self.places += zip(host, port, strict=True) if isinstance(host, list) else [(host, port)]
        if len(self.places) > 1:
            self.places = [(host, port or PORT) for host, port in self.places]
            given.setdefault("target_session_attrs", "read-write")
        self._options = {**options, **given}
        self._timeout = timeout / len(self.places)

    @property
    def wanted(self) -> str | None:
        """Which kind of server is acceptable (`target_session_attrs`); None for any."""
        return self._options.get("target_session_attrs")

    async def absent(self) -> list[str]:
        """Those of them, as host:port, that take no connection at all, with writes or without."""
        found = []
        for host, port in self.places:
            try:
                made = await self._reach(host, port, target_session_attrs="any")
            except _FAILURES:
                found.append(f"{host}:{port}")
            else:
                await made.close()
        return found

    async def _reach(self, host: str | None, port: int | None, **changed: Any) -> asyncpg.Connection:
        return await asyncpg.connect(host=host, port=port, timeout=self._timeout, **(self._options | changed))

    async def connect(self) -> asyncpg.Connection:
        """A connection to the first host that will do; the one that did last time is asked first.

        Raises what asyncpg does; of several failures, one that a server has answered.
        """
        failure: Exception | None = None
        for place in list(self.places):
            try:
                made = await self._reach(*place)
            except _FAILURES as error:
                if failure is None or isinstance(failure, OSError):
                    failure = error
                continue
            self.places.remove(place)
            self.places.insert(0, place)
            return made
        raise failure or OSError("the URL names no host")
