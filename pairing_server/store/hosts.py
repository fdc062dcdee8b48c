"""The servers that a database's URL names, and a connection to the one that takes writes."""

from __future__ import annotations

from typing import Any

import asyncpg
from sqlalchemy.engine import URL, make_url


def parse(url: str) -> URL:
    """The URL for SQLAlchemy, which wants several hosts (`postgresql://a:1,b:2/name`) in the query."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    several = hosts.split(",")
    if len(several) == 1:
        return make_url(url).set(drivername="postgresql+asyncpg")
    parsed = make_url(f"{scheme}://{login}{at}{slash}{path}").set(drivername="postgresql+asyncpg")
    return parsed.update_query_dict({"host": [host if ":" in host else f"{host}:5432" for host in several]})


class Hosts:
    """Where connections come from. With several hosts, each gets its share of the time, or one that is cut
    off without a word would use up the others' as well."""

    def __init__(self, url: URL, *, timeout: float, **options: Any) -> None:
        """`timeout`: seconds for a connection, whichever host it is to; `options`: asyncpg's."""
        given = dict(url.get_dialect()().create_connect_args(url)[1])
        host, port = given.pop("host", None), given.pop("port", None)
        several = isinstance(host, list)
        self._places = list(zip(host, port, strict=True)) if several else [(host, port)]
        if several:
            given.setdefault("target_session_attrs", "read-write")
        self._options = {**options, **given}
        self._timeout = timeout / len(self._places)

    async def connect(self) -> asyncpg.Connection:
        """A connection to the first host that will do; the one that did last time is asked first.

        Raises what asyncpg does; of several failures, one that a server has told.
        """
        failure: Exception | None = None
        for place in list(self._places):
            host, port = place
            try:
                made = await asyncpg.connect(host=host, port=port, timeout=self._timeout, **self._options)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
                if failure is None or isinstance(failure, OSError):
                    failure = error
                continue
            self._places.remove(place)
            self._places.insert(0, place)
            return made
        raise failure or OSError("the URL names no host")
