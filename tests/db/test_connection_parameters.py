"""A database's URL, as managed services and people write it: all of libpq's parameters, and what is said of those that do not work."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from pairing_server.db.connection_parameters import (
    PARAMETERS,
    ConnectionParameterError,
    read,
    with_parameters,
)
from pairing_server.db.embedded.postgres import find_programs

SECRET = "s3cr3t-w0rd"
OURS = {"password_file", "password_command"}
# Newer than the library of the embedded database.
LATER = {"servicefile"}


def places(url: str) -> list[tuple[str | None, int | None]]:
    return list(read(url, {}).places)


class Option(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")),
        ("dispsize", ctypes.c_int),
    ]


def libpq_parameters() -> dict[str, str]:
    """Every parameter that libpq itself has, and its variable of the environment."""
    library = ctypes.CDLL(str(find_programs().parent / "lib" / "libpq.so.5"))
    library.PQconndefaults.restype = ctypes.POINTER(Option)
    options, found = library.PQconndefaults(), {}
    for option in iter(options):
        if option.keyword is None:
            return found
        found[option.keyword.decode()] = (option.envvar or b"").decode()
    raise AssertionError("the list ends with an empty one")


def test_every_parameter_of_libpq_is_known_with_its_variable() -> None:
    ours = {name: parameter.environment for name, parameter in PARAMETERS.items()}
    theirs = libpq_parameters()
    # What programs print in is no matter of the server's.
    assert theirs.pop("client_encoding") == "PGCLIENTENCODING"
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) == OURS | LATER | {"client_encoding"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h/db", [("h", None)]),
        ("postgres://u:p@h:5433/db?sslmode=require", [("h", 5433)]),
        ("postgresql://u@/db?host=/run/postgresql", [("/run/postgresql", None)]),
        ("postgresql:///db?host=/run/postgresql&port=5433", [("/run/postgresql", 5433)]),
        ("postgresql://u@%2Frun%2Fpostgresql/db", [("/run/postgresql", None)]),
        ("postgresql://u@%2Frun%2Fpostgresql:5433/db", [("/run/postgresql", 5433)]),
        ("postgresql:///db", [(None, None)]),
        ("postgresql://", [(None, None)]),
        ("postgresql://u:p%2Cq@h1:1,h2/db", [("h1", 1), ("h2", 5432)]),
        ("postgresql://h1,h2,h3:7/db?sslmode=require", [("h1", 5432), ("h2", 5432), ("h3", 7)]),
        ("postgresql://u@[::1]:1,[fe80::2],h3/db", [("::1", 1), ("fe80::2", 5432), ("h3", 5432)]),
        ("postgresql://u@/db?host=h1:1&host=h2:2", [("h1", 1), ("h2", 2)]),
        ("postgresql://u@/db?host=h1,h2&port=1,2", [("h1", 1), ("h2", 2)]),
        ("postgresql://u@/db?host=h1,h2&port=6", [("h1", 6), ("h2", 6)]),
        ("postgresql://u@/db?hostaddr=::1", [("::1", None)]),
    ],
)
def test_every_host_is_known_with_its_port(url: str, expected: list[tuple[str | None, int | None]]) -> None:
    assert places(url) == expected


def test_user_password_and_database_are_decoded() -> None:
    values = read("postgresql://us%40er:p%2Fw%40+%25@h1:1,h2:2/na%20me", {}).values
    assert (values["user"], values["password"], values["dbname"]) == ("us@er", "p/w@+%", "na me")
    assert read("postgresql://h/?user=u&password=p&dbname=d", {}).values == {
        "host": "h",
        "user": "u",
        "password": "p",
        "dbname": "d",
    }
    assert read("postgresql://u:p@ss@h/db", {}).values["password"] == "p@ss"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (f"postgresql://u:{SECRET}/w@h/db", "%2F for /, %40 for @"),
        (f"postgresql://u:{SECRET}?w@h/db", "%3F for ?"),
        (f"postgresql://u:{SECRET}?{SECRET}=w@h/db", "%3F for ?"),
        (f"postgresql://u:{SECRET}/5@h:5432/db?sslmode=require", "%2F for /"),
        ("postgresql://u@/run/postgresql/db", "postgresql://user@/name?host=/run/postgresql"),
        ("postgresql:///db?host=%40postgres", "the folder of a socket"),
        (f"postgresql://u:{SECRET}@h:0/db", "a port is a number up to 65535"),
        (f"postgresql://u:{SECRET}@h:١/db", "a port is a number up to 65535"),
        (f"postgresql://u:{SECRET}@h1,/db", "one of the hosts is empty"),
        (f"postgresql://u:{SECRET}@h1,h2,h3/db?port=1,2", "as many as hosts: 3"),
        (f"postgresql://u:{SECRET}@h/db?sslmode", "parameters are name=value"),
        (f"mysql://u:{SECRET}@h/db", "begins with postgresql:// or postgres://"),
        (f"host=h user=u password={SECRET}", "begins with postgresql:// or postgres://"),
    ],
)
def test_what_to_write_is_said_in_one_line_without_the_password(url: str, advice: str) -> None:
    with pytest.raises(ConnectionParameterError) as raised:
        read(url, {})
    said = str(raised.value)
    assert advice in said and "\n" not in said and SECRET not in said


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=require",
        "require_auth=scram-sha-256",
        "requirepeer=postgres",
        "gssencmode=require",
        "gssdelegation=1",
        "sslcertmode=disable",
        "sslcrldir=/etc",
        "sslsni=0",
        f"sslkeylogfile={SECRET}",
        "min_protocol_version=3.2",
        "client_encoding=LATIN1",
        "replication=database",
        f"scram_client_key={SECRET}",
        f"scram_server_key={SECRET}",
        f"oauth_client_secret={SECRET}",
        "hostaddr=10.0.0.1",
        "sslmode=verify_full",
        "sslmode=no-verify",
        "sslnegotiation=fast",
        "sslnegotiation=direct",
        "sslrootcert=/nonexistent/root.crt",
        "sslrootcert=system&sslmode=require",
        "sslcert=/nonexistent/client.crt",
        "sslkey=/nonexistent/client.key",
        "sslcrl=/nonexistent/root.crl",
        "ssl_min_protocol_version=SSLv3",
        "target_session_attrs=master",
        "load_balance_hosts=yes",
        "connect_timeout=soon",
        "keepalives_idle=1m",
        "gsslib=heimdal",
        "servicefile=/nonexistent",
        "service=nonexistent",
        "aplication_name=x",
        "schema=app",
        "pgbouncer=true",
        "statement_cache_size=0",
    ],
)
def test_a_parameter_that_does_not_work_is_named_with_what_to_write(query: str) -> None:
    with pytest.raises(ConnectionParameterError) as raised:
        read(f"postgresql://u:{SECRET}@h/db?{query}", {})
    said = str(raised.value)
    assert said.startswith(f"{query.partition('=')[0]}: ") and "\n" not in said and SECRET not in said


def test_a_name_nearly_right_is_corrected() -> None:
    with pytest.raises(ConnectionParameterError, match="did you mean application_name"):
        read("postgresql://h/db?aplication_name=x", {})


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer",
        "gssencmode=prefer",
        "gssencmode=disable",
        "sslcertmode=allow",
        "sslcompression=0",
        "sslsni=1",
        "max_protocol_version=latest",
        "client_encoding=UTF8",
        "application_name=x",
        "sslmode=",
        "sslrootcert=system",
        "sslnegotiation=direct&sslmode=require",
    ],
)
def test_what_asks_for_no_more_than_is_done_anyway_is_taken(query: str) -> None:
    values = read(f"postgresql://h/db?{query}", {}).values
    asked = dict(pair.split("=") for pair in query.split("&"))
    assert {name: values.get(name, "") for name in asked} == asked


def test_what_stood_in_urls_before_is_still_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("postgresql://h/db?ssl=verify-full", {}).values["sslmode"] == "verify-full"
    assert read("postgresql://h/db?ssl=true", {}).values["sslmode"] == "require"
    assert read("postgresql://h/?database=db", {}).values["dbname"] == "db"


@pytest.mark.parametrize("query", ["ssl=verify-full", "sslmode=verify-full", "sslmode=verify-ca"])
def test_a_check_of_the_server_without_certificates_says_where_to_put_them(
    query: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConnectionParameterError, match=r"sslrootcert=FILE.*sslrootcert=system.*root\.crt"):
        read(f"postgresql://h/db?{query}", {})
    assert read(f"postgresql:///db?host=/run&{query}", {}), "there is no TLS on a socket"


def test_a_service_and_the_environment_have_what_the_url_lacks(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text(
        "# ours\n[app]\nhost=h1,h2\nport=7\ndbname=of_service\napplication_name=100%\n[other]\nhost=x\n"
    )
    environ = {
        "PGSERVICEFILE": str(file),
        "PGSERVICE": "other",
        "PGUSER": "bob",
        "PGDATABASE": "of_environment",
    }
    found = read("postgresql:///?service=app&dbname=of_url", environ)
    assert found.places == (("h1", 7), ("h2", 7))
    assert found.user == "bob"
    assert found.values["dbname"] == "of_url"
    assert found.values["application_name"] == "100%"
    assert read("postgresql:///", environ).places == (("x", None),)
    with pytest.raises(ConnectionParameterError, match="service: there is none of that name"):
        read("postgresql:///?service=none", environ)
    file.write_text("[app]\nhost=h\nchannel_binding=require\n")
    with pytest.raises(
        ConnectionParameterError, match=f"channel_binding of the service in {file}: does not work"
    ):
        read("postgresql:///?service=app", environ)
    file.write_text("nothing of the kind")
    with pytest.raises(ConnectionParameterError, match="no service file"):
        read("postgresql:///?service=app", environ)


def test_a_variable_that_does_not_work_is_named() -> None:
    with pytest.raises(ConnectionParameterError, match=r"^PGCHANNELBINDING: does not work"):
        read("postgresql://h/db", {"PGCHANNELBINDING": "require"})


def test_the_addresses_of_the_environment_are_not_mixed_with_those_of_the_url() -> None:
    assert read("postgresql://h/db", {"PGHOSTADDR": "10.0.0.1", "PGHOST": "x"}).places == (("h", None),)


def test_parameters_are_added_where_the_url_has_none_of_its_own() -> None:
    given = {"connect_timeout": "9", "password_command": "print 'a&b' # 100%"}
    for url in ("postgresql://h/db", "postgresql://h/db?sslmode=require"):
        assert read(with_parameters(url, given), {}).values.items() >= given.items()
    own = "postgresql://h/db?connect_timeout=2"
    assert read(with_parameters(own, given), {}).values["connect_timeout"] == "2"
    assert with_parameters(own, {}) == own


def test_a_process_whose_user_has_neither_name_nor_home_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container that runs with any number."""
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert read("postgresql://u@h/db?sslmode=require", {}).user == "u"
    with pytest.raises(ConnectionParameterError, match="names no user"):
        read("postgresql://h/db", {})
    with pytest.raises(ConnectionParameterError, match="sslrootcert=FILE"):
        read("postgresql://u@h/db?sslmode=verify-full", {})
    with pytest.raises(ConnectionParameterError, match="there is none of that name"):
        read("postgresql://u@h/db?service=x", {})
