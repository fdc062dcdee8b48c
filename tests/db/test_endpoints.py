"""The URL's hosts, one or several, and which of them a connection leads to."""

from __future__ import annotations

import pytest

from pairing_server.db import endpoints


def places(url: str) -> list[tuple[str | None, int | None]]:
    return endpoints.Endpoints(url, timeout=3).places


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h/db", [("h", None)]),
        ("postgresql://u:p@h:5433/db?ssl=require", [("h", 5433)]),
        ("postgresql://u@/db?host=/run/postgresql", [("/run/postgresql", None)]),
        ("postgresql:///db", [(None, None)]),
        ("postgresql://u:p%2Cq@h1:1,h2/db", [("h1", 1), ("h2", 5432)]),
        ("postgresql://h1,h2,h3:7/db?ssl=require", [("h1", 5432), ("h2", 5432), ("h3", 7)]),
        ("postgresql://u@[::1]:1,[fe80::2],h3/db", [("::1", 1), ("fe80::2", 5432), ("h3", 5432)]),
        ("postgresql://u@/db?host=h1:1&host=h2:2", [("h1", 1), ("h2", 2)]),
    ],
)
def test_every_host_of_the_url_is_known_with_its_port(
    url: str, expected: list[tuple[str | None, int | None]]
) -> None:
    assert places(url) == expected


def test_user_password_database_and_options_stay_as_they_are() -> None:
    for parsed in endpoints.parse("postgresql://us%40er:p%2Fw@h1:1,h2:2/name?ssl=require"):
        assert (parsed.username, parsed.password, parsed.database) == ("us@er", "p/w", "name")
        assert parsed.query["ssl"] == "require"


def test_with_several_hosts_one_that_takes_writes_is_wanted() -> None:
    several = endpoints.Endpoints("postgresql://h1,h2/db", timeout=3)
    assert several.wanted == "read-write"
    asked = endpoints.Endpoints("postgresql://h1,h2/db?target_session_attrs=any", timeout=3)
    assert asked.wanted == "any"
    one = endpoints.Endpoints("postgresql://h1/db", timeout=3)
    assert one.wanted is None


def test_the_time_for_a_connection_is_shared_by_the_hosts() -> None:
    assert endpoints.Endpoints("postgresql://h1,h2/db", timeout=3)._timeout == 1.5
