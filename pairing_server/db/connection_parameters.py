"""A database's URL as libpq reads it: its parameters, those of a service file and of the environment.

libpq is PostgreSQL's own client library. Managed services write URLs for it, with any of the parameters of
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS. asyncpg has some of them. Here is what each may be;
db/endpoints.py connects with it. A parameter that cannot be had is an error which says what to write in its place: a
database that is reached less safely than its URL asks for would be worse.
"""

from __future__ import annotations

import configparser
import getpass
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote, unquote

from pairing_server.text import is_host_name

PORT = 5432
FORM = (
    "expected a URL that begins with postgresql:// or postgres://,"
    " such as postgresql://user:password@host:5432/name"
)
_ENCODE = (
    "in a user's name or password write %2F for /, %40 for @, %3A for :, %3F for ?, %23 for #, %25 for %"
)
SYSTEM = "system"
# Where a service is looked up after the user's own file: PGSYSCONFDIR, or where Debian has it.
_SYSTEM_FOLDER = "/etc/postgresql-common"


class ConnectionParameterError(ValueError):
    """A URL, service or variable that no connection can be made with. The text says what to write; it repeats no value."""


Check = Callable[[str], None]


def _any(_: str) -> None:
    pass


def _one_of(*words: str) -> Check:
    def check(text: str) -> None:
        if text not in words:
            raise ValueError(f"expected one of {', '.join(words)}")

    return check


def _number(text: str) -> None:
    if not (text.isascii() and text.lstrip("-").isdecimal()):
        raise ValueError("expected a whole number")


def _file(text: str) -> None:
    if not os.access(text, os.R_OK):
        raise ValueError(f"there is no file {text}, or it may not be read")


def _certificates(text: str) -> None:
    if text != SYSTEM:
        _file(text)


def _unsupported(remedy: str, *harmless: str) -> Check:
    """It cannot be had; the values that are `harmless` ask for what is done anyway."""

    def check(text: str) -> None:
        if text not in harmless:
            raise ValueError(f"does not work here: {remedy}")

    return check


_TLS_VERSION = _one_of("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_PASSWORD_INSTEAD = "leave it out, and give a password"  # noqa: S105
_VERIFY_INSTEAD = "leave it out; sslmode=verify-full proves that it is the right server"


@dataclass(frozen=True, slots=True)
class Parameter:
    """`environment`: the variable that holds it where neither the URL nor the service has it."""

    environment: str = ""
    check: Check = _any


PARAMETERS: dict[str, Parameter] = {
    "host": Parameter("PGHOST"),
    "hostaddr": Parameter("PGHOSTADDR"),
    "port": Parameter("PGPORT"),
    "dbname": Parameter("PGDATABASE"),
    "user": Parameter("PGUSER"),
    "password": Parameter("PGPASSWORD"),
    "passfile": Parameter("PGPASSFILE"),
    "service": Parameter("PGSERVICE"),
    "servicefile": Parameter("PGSERVICEFILE", _file),
    "options": Parameter("PGOPTIONS"),
    "application_name": Parameter("PGAPPNAME"),
    "fallback_application_name": Parameter(),
    "connect_timeout": Parameter("PGCONNECT_TIMEOUT", _number),
    "target_session_attrs": Parameter(
        "PGTARGETSESSIONATTRS",
        _one_of("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    ),
    "load_balance_hosts": Parameter("PGLOADBALANCEHOSTS", _one_of("disable", "random")),
    "keepalives": Parameter("", _number),
    "keepalives_idle": Parameter("", _number),
    "keepalives_interval": Parameter("", _number),
    "keepalives_count": Parameter("", _number),
    "tcp_user_timeout": Parameter("", _number),
    "sslmode": Parameter(
        "PGSSLMODE", _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
    ),
    "sslnegotiation": Parameter("PGSSLNEGOTIATION", _one_of("postgres", "direct")),
    "sslcert": Parameter("PGSSLCERT", _file),
    "sslkey": Parameter("PGSSLKEY", _file),
    "sslpassword": Parameter(),
    "sslrootcert": Parameter("PGSSLROOTCERT", _certificates),
    "sslcrl": Parameter("PGSSLCRL", _file),
    "ssl_min_protocol_version": Parameter("PGSSLMINPROTOCOLVERSION", _TLS_VERSION),
    "ssl_max_protocol_version": Parameter("PGSSLMAXPROTOCOLVERSION", _TLS_VERSION),
    "krbsrvname": Parameter("PGKRBSRVNAME"),
    "gsslib": Parameter("PGGSSLIB", _one_of("gssapi", "sspi")),
    # What asyncpg has not got.
    "channel_binding": Parameter("PGCHANNELBINDING", _unsupported(_VERIFY_INSTEAD, "prefer", "disable")),
    "require_auth": Parameter("PGREQUIREAUTH", _unsupported(_VERIFY_INSTEAD)),
    "requirepeer": Parameter(
        "PGREQUIREPEER",
        _unsupported("leave it out, and use a socket in a folder that only the server's user can write to"),
    ),
    "gssencmode": Parameter(
        "PGGSSENCMODE", _unsupported("write sslmode=verify-full in its place", "disable", "prefer")
    ),
    "gssdelegation": Parameter("PGGSSDELEGATION", _unsupported("leave it out", "0")),
    "sslcertmode": Parameter(
        "PGSSLCERTMODE", _unsupported("leave it out; a certificate is sent where sslcert names one", "allow")
    ),
    "sslcrldir": Parameter("PGSSLCRLDIR", _unsupported("write sslcrl=FILE in its place")),
    "sslcompression": Parameter("PGSSLCOMPRESSION", _unsupported("leave it out", "0", "1")),
    "sslsni": Parameter("PGSSLSNI", _unsupported("leave it out; the host's name is always sent", "1")),
    "sslkeylogfile": Parameter("", _unsupported("leave it out, and set SSLKEYLOGFILE in the environment")),
    "min_protocol_version": Parameter(
        "PGMINPROTOCOLVERSION", _unsupported("leave it out; the protocol is 3.0", "3.0")
    ),
    "max_protocol_version": Parameter(
        "PGMAXPROTOCOLVERSION", _unsupported("leave it out; the protocol is 3.0", "3.0", "3.2", "latest")
    ),
    "client_encoding": Parameter(
        "", _unsupported("leave it out; the server speaks UTF-8", "auto", "utf8", "UTF8", "utf-8", "UTF-8")
    ),
    "replication": Parameter("", _unsupported("leave it out", "false", "off", "no", "0")),
    "scram_client_key": Parameter("", _unsupported(_PASSWORD_INSTEAD)),
    "scram_server_key": Parameter("", _unsupported(_PASSWORD_INSTEAD)),
    "oauth_issuer": Parameter("", _unsupported(_PASSWORD_INSTEAD)),
    "oauth_client_id": Parameter("", _unsupported(_PASSWORD_INSTEAD)),
    "oauth_client_secret": Parameter("", _unsupported(_PASSWORD_INSTEAD)),
    "oauth_scope": Parameter("", _unsupported(_PASSWORD_INSTEAD)),
    # Ours: what has the password at each new connection. PAIRING_DATABASE_PASSWORD_FILE and …_COMMAND end up here.
    "password_file": Parameter(),
    "password_command": Parameter(),
}
# Parameters of other libraries that stand in URLs of PostgreSQL, and what to write.
_ELSEWHERE = {
    "schema": "write options=-c%20search_path%3DNAME in its place",
    "currentSchema": "write options=-c%20search_path%3DNAME in its place",
    "sslrootcertificate": "write sslrootcert=FILE in its place",
    "timeout": "write connect_timeout in its place",
}
# Other names: asyncpg's, and the variables of the environment.
_NAMES = {
    "database": "dbname",
    "ssl": "sslmode",
    **{parameter.environment: name for name, parameter in PARAMETERS.items()},
}
# libpq takes JDBC's ssl=true.
_SSL = {"true": "require", "false": "disable"}

Place = tuple[str | None, int | None]


@dataclass(frozen=True, slots=True)
class ConnectionParameters:
    """`places`: host and port of each server, in order. A host may be the folder of a socket; None where nothing names one."""

    places: tuple[Place, ...]
    values: Mapping[str, str] = field(repr=False)

    @property
    def user(self) -> str:
        """The role."""
        return self.values["user"]


def read(url: str, environ: Mapping[str, str] = os.environ) -> ConnectionParameters:
    """What a database's URL asks for; its service and then the environment have what it lacks.

    Raises ConnectionParameterError.
    """
    values = _of_url(url)
    if service := values.get("service") or environ.get("PGSERVICE"):
        values = _of_service(service, values, environ) | values
    if "hostaddr" in values and "host" in values:
        raise ConnectionParameterError("hostaddr: beside a host it does not work: write the address as host")
    if not values.keys() & {"host", "hostaddr"}:
        values |= _of_environment(environ, "host", "hostaddr")
    skipped = {"host", "hostaddr", "service"}
    if values.keys() & {"password_file", "password_command"}:
        skipped.add("password")
    rest = (name for name in PARAMETERS if name not in skipped)
    values = _of_environment(environ, *rest) | values
    if "user" not in values:
        values["user"] = _system_user()
    places = tuple(_places(values))
    found = ConnectionParameters(places, values)
    _check_certificates(found)
    return found


def password_in(url: str) -> bool:
    """Whether the URL itself says what the password is, or where. Raises ConnectionParameterError."""
    return not {"password", "passfile", "password_file", "password_command"}.isdisjoint(_of_url(url))


def with_parameters(url: str, values: Mapping[str, str]) -> str:
    """The URL with these parameters; those that it has itself win."""
    head, _, query = url.partition("?")
    added = [f"{name}={quote(value, safe='')}" for name, value in values.items()]
    return f"{head}?{'&'.join([*added, query] if query else added)}" if added else url


def _of_url(url: str) -> dict[str, str]:
    scheme, there, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, name = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    if scheme not in ("postgresql", "postgres") or not there:
        raise ConnectionParameterError(FORM)
    if "@" in name or ("@" in query and "@" not in authority):
        raise ConnectionParameterError(f"{FORM}; {_ENCODE}")
    if "/" in name:
        raise ConnectionParameterError(
            f"{FORM}; for the folder of a socket write postgresql://user@/name?host=/run/postgresql"
        )
    user, _, password = login.partition(":")
    found = {"host": hosts, "dbname": name, "user": user, "password": password}
    found = {name: unquote(value) for name, value in found.items()}
    given: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        parameter, equals, value = pair.partition("=")
        if not equals:
            raise ConnectionParameterError(f"{FORM}; parameters are name=value, and {_ENCODE}")
        given.setdefault(unquote(parameter), []).append(unquote(value))
    # Several hosts may stand in as many parameters; of all else the last counts.
    found |= {name: (",".join if name == "host" else _last)(each) for name, each in given.items()}
    return _checked(found)


def _last(values: list[str]) -> str:
    return values[-1]


def _checked(given: Mapping[str, str], where: str = "") -> dict[str, str]:
    """The values that are not empty, under libpq's names. `where` they stand, for an error."""
    found = {}
    for written, value in given.items():
        name = _NAMES.get(written, written)
        if name not in PARAMETERS:
            similar = get_close_matches(name, PARAMETERS, 1, cutoff=0.75)
            hint = f"did you mean {similar[0]}?" if similar else "leave it out"
            raise ConnectionParameterError(
                f"{written[:40]}{where}: libpq has no such parameter; {_ELSEWHERE.get(name, hint)}"
            )
        if value == "":
            continue
        found[name] = _SSL.get(value.lower(), value) if written == "ssl" else value
        try:
            PARAMETERS[name].check(found[name])
        except ValueError as error:
            raise ConnectionParameterError(f"{written}{where}: {error}") from None
    return found


def _of_environment(environ: Mapping[str, str], *names: str) -> dict[str, str]:
    variables = [PARAMETERS[name].environment for name in names]
    return _checked({variable: environ.get(variable, "") for variable in variables if variable})


def _of_service(service: str, url: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """What the first service file that has the service says of it."""
    own = url.get("servicefile") or environ.get("PGSERVICEFILE")
    files = [file for file in (Path(own) if own else _in_home(".pg_service.conf"),) if file is not None]
    files.append(Path(environ.get("PGSYSCONFDIR", _SYSTEM_FOLDER)) / "pg_service.conf")
    for file in files:
        parser = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            raise ConnectionParameterError(f"service: {file} is no service file of libpq") from None
        if parser.has_section(service):
            return _checked(dict(parser[service]), f" of the service in {file}")
    raise ConnectionParameterError(f"service: there is none of that name in {' or '.join(map(str, files))}")


def _places(values: Mapping[str, str]) -> Iterator[Place]:
    hosts = (values.get("host") or values.get("hostaddr") or "").split(",")
    ports = values.get("port", "").split(",")
    if len(ports) not in (1, len(hosts)):
        raise ConnectionParameterError(f"port: expected one, or as many as hosts: {len(hosts)}")
    for number, host in enumerate(hosts):
        name, port = _split(host)
        if name.startswith("@"):
            raise ConnectionParameterError(
                "host: an abstract socket does not work; write the folder of a socket, such as /run/postgresql"
            )
        if not name and len(hosts) > 1:
            raise ConnectionParameterError(f"{FORM}; one of the hosts is empty")
        if not name.startswith("/") and not is_host_name(name):
            raise ConnectionParameterError("host: the parts of a host's name have 1 to 63 characters")
        port = port or ports[number % len(ports)]
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise ConnectionParameterError(f"{FORM}; a port is a number up to 65535, and {_ENCODE}")
        yield name or None, int(port) if port else (PORT if len(hosts) > 1 else None)


def _split(host: str) -> tuple[str, str]:
    """A host and its port; empty if it has none."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name, port.removeprefix(":")
    name, _, port = host.rpartition(":")
    if not name or ":" in name or (host.startswith("/") and not port.isdecimal()):
        return host, ""
    return name, port


def _in_home(name: str) -> Path | None:
    """That file of the user's; None for a user without a home, as in containers that run with any number."""
    try:
        return Path.home() / name
    except RuntimeError:
        return None


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConnectionParameterError(
            f"{FORM}; it names no user, and the user of this process has no name"
        ) from None


def _check_certificates(found: ConnectionParameters) -> None:
    mode, root = found.values.get("sslmode", "prefer"), found.values.get("sslrootcert")
    if all((host or "").startswith("/") for host, _ in found.places):
        return  # No TLS on a socket.
    if root == SYSTEM and mode not in ("prefer", "verify-full"):
        raise ConnectionParameterError("sslrootcert: `system` works with sslmode=verify-full only")
    if found.values.get("sslnegotiation") == "direct" and mode in ("disable", "allow", "prefer") and not root:
        raise ConnectionParameterError("sslnegotiation: `direct` works with sslmode=require or stricter only")
    own = _in_home(".postgresql/root.crt")
    if mode.startswith("verify") and not root and not (own and os.access(own, os.R_OK)):
        raise ConnectionParameterError(
            f"sslmode: {mode} needs the certificate of the authority that signed the server's: write"
            " sslrootcert=FILE, or sslrootcert=system for those that this machine trusts, or put it into"
            " ~/.postgresql/root.crt"
        )
