"""PostgreSQL 15 as Debian has it, the oldest that is supported: TLS, passwords, and the two roles of the documents."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from harness.postgres import Postgres, own_folder
from harness.program import ROOT
from pairing_server.db.database import Database
from pairing_server.db.endpoints import Endpoints
from pairing_server.server.server import Node
from tests.cli.commands import Operator
from tests.conftest import CONFIGURATION, execute, execute_within
from tests.db.test_database import end_all
from tests.db.test_roles import FORBIDDEN
from tests.devices import Site
from tests.programs import needs

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
pytestmark = needs(str(PROGRAMS / "postgres"))
ACCESS = """
hostssl all postgres all trust
hostssl all all all scram-sha-256
"""
PASSWORD = "a long enough password"


class Debian:
    """The server. `certificate`: the one that it shows, signed by itself."""

    def __init__(self, folder: Path) -> None:
        self.server = Postgres(own_folder(folder / "cluster"), PROGRAMS)
        self.server.make()
        self.certificate = self.server.use_tls(folder, ACCESS)
        self.server.start()

    def url(self, role: str, database: str, query: str = "sslmode=require") -> str:
        return f"postgresql://{role}@localhost:{self.server.port}/{database}?{query}"

    @property
    def administrator(self) -> str:
        return self.url("postgres", "postgres")


@pytest.fixture(scope="module")
def debian() -> Iterator[Debian]:
    folder = Path(tempfile.mkdtemp(prefix="pairing-debian-", dir="/tmp"))
    folder.chmod(0o755)
    made = Debian(folder)
    execute(made.administrator, "CREATE ROLE bob LOGIN PASSWORD 'secret'", "CREATE DATABASE bob OWNER bob")
    try:
        yield made
    finally:
        made.server.stop("immediate")
        made.server.reserved.close()
        shutil.rmtree(folder)


# What managed services hand out


async def tried(url: str) -> asyncpg.Record:
    connection = await Endpoints(url, timeout=5).connect()
    try:
        return await connection.fetchrow(
            "SELECT ssl, version, current_setting('application_name') AS name, current_setting('search_path') AS path"
            " FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=prefer",
        "sslmode=require",
        "ssl=true",
        "sslmode=verify-ca&sslrootcert={certificate}",
        "sslmode=verify-full&sslrootcert={certificate}&ssl_min_protocol_version=TLSv1.3",
        "ssl=verify-full&sslrootcert={certificate}&channel_binding=prefer&gssencmode=disable",
        "sslmode=require&keepalives=1&keepalives_idle=30&tcp_user_timeout=5000&connect_timeout=5",
        "sslmode=require&target_session_attrs=primary&load_balance_hosts=random",
        "sslmode=require&application_name=ours&options=-c%20search_path%3Dapp",
    ],
)
async def test_a_url_of_a_managed_service_works(debian: Debian, query: str) -> None:
    url = debian.url("bob:secret", "bob", query.format(certificate=debian.certificate))
    found = await tried(url)
    assert found["ssl"] and ("TLSv1.3" not in query or found["version"] == "TLSv1.3")
    if "application_name" in query:
        assert (found["name"], found["path"]) == ("ours", "app")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("sslmode=disable", "no encryption"),
        ("sslmode=verify-full&sslrootcert=system", "certificate verify failed"),
        ("sslmode=verify-full&sslrootcert=/nonexistent", "sslrootcert: there is no file /nonexistent"),
        ("sslmode=require&channel_binding=require", "channel_binding: does not work here"),
    ],
)
def test_what_fails_is_said_in_one_line_by_every_command(
    debian: Debian, tmp_path: Path, query: str, told: str
) -> None:
    operator = Operator(debian.url("bob:secret", "bob", query), tmp_path)
    for command in (("user", "list"), ("migrate",)):
        assert told in operator.refuses(*command)
    assert told in operator.refuses("serve", "--no-wait")


async def test_a_certificate_for_another_name_is_refused(debian: Debian) -> None:
    url = debian.url("bob:secret", "bob", f"sslmode=verify-full&sslrootcert={debian.certificate}")
    with pytest.raises(OSError, match="IP address mismatch"):
        await tried(url.replace("localhost", "127.0.0.1"))


# Passwords that change


@pytest.mark.parametrize("source", ["password_file", "password_command", "passfile"])
async def test_a_changed_password_is_used_by_the_next_connection(
    debian: Debian, tmp_path: Path, source: str
) -> None:
    file = tmp_path / "secret"
    value = f"cat {file}" if source == "password_command" else str(file)
    line = "localhost:*:*:bob:{}" if source == "passfile" else "{}"

    async def change(password: str) -> None:
        file.write_text(line.format(password))
        file.chmod(0o600)
        await execute_within(debian.administrator, f"ALTER ROLE bob PASSWORD '{password}'")

    database = Database(debian.url("bob", "bob", f"sslmode=require&{source}={value.replace(' ', '%20')}"))
    try:
        for before, password in (("secret", "first"), ("first", "second")):
            await change(password)
            await end_all(debian.url("postgres", "bob"))
            with pytest.raises(asyncpg.InvalidPasswordError):
                await tried(debian.url(f"bob:{before}", "bob"))
            await database.ready()
            assert await database.once("SELECT current_user") == ("bob",)
    finally:
        await database.close()
        await change("secret")


# Two roles, as docs/operations.md has them


def documented(language: str) -> list[str]:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("### Two roles\n")[2].partition("\n### ")[0]
    return re.findall(rf"```{language}\n(.+?)```", section, re.S)


def statements(block: str, database: str) -> list[str]:
    """With names of the test's own: the cluster of the tests has a role `pairing`."""
    return re.sub(r"pairing\b|pairing(?=_owner)", database, block).strip().rstrip(";").split(";\n")


async def refused(url: str, acts: Sequence[str]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for act in acts:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(FORBIDDEN[act])
    finally:
        await connection.close()


def use(operator: Operator, running: str) -> None:
    """What the documents do next: migrate with both URLs, and serve with one."""
    operator.says("migrate")
    del operator.environ["PAIRING_MIGRATE_DATABASE_URL"]
    operator.says("user", "add", "alice", stdin=PASSWORD)
    assert "account.created" in operator.says("audit", "list")
    asyncio.run(refused(running, ["deleting", "making a table", "migrating", "switching the trigger off"]))


@pytest.mark.parametrize("version", ["15", "embedded"])
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_the_two_roles_of_the_documents_work(
    debian: Debian, postgres: str, tmp_path: Path, version: str, existing: bool
) -> None:
    """Made by an administrator who is no superuser, as in managed services."""
    name = f"documented_{'existing' if existing else 'new'}"
    admin = postgres.replace("/pairing?", "/postgres?") if version == "embedded" else debian.administrator

    def url(role: str, database: str = name) -> str:
        at = re.sub(r"//[^@]*@", f"//{role}:secret@", admin)
        return at.replace("/postgres?", f"/{database}?")

    execute(admin, "CREATE ROLE managing LOGIN CREATEDB CREATEROLE PASSWORD 'secret'")
    new, other = documented("sql")
    try:
        make = statements(new, name)
        if existing:
            make = [line.replace(f" OWNER {name}_owner", "") for line in make]
        execute(url("managing", "postgres"), *make)
        if existing:
            execute(admin, f"ALTER DATABASE {name} OWNER TO managing")
            execute(url("managing"), *statements(other, name))
        use(Operator(url(name), tmp_path, MIGRATE_DATABASE_URL=url(f"{name}_owner")), url(name))
    finally:
        execute(admin, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        for role in (name, f"{name}_owner", "managing"):
            execute(admin, f"DROP ROLE IF EXISTS {role}")


async def test_a_whole_pairing_works_there_with_two_roles(debian: Debian, tmp_path: Path) -> None:
    new, _ = documented("sql")
    await execute_within(debian.administrator, *statements(new, "paired"))
    running, owner = (debian.url(f"{role}:secret", "paired") for role in ("paired", "paired_owner"))
    operator = Operator(running, tmp_path, MIGRATE_DATABASE_URL=owner)
    await asyncio.to_thread(operator.says, "migrate")
    node = Node(CONFIGURATION, running)
    [(_, port), *_] = await node.start(timers=False)
    site = Site(node, port)
    try:
        desktop, mobile = await site.pair()
        mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"n": 1}})
        assert (await desktop.socket.expect("channel_message"))["payload"] == {"n": 1}
        assert (await site.get("/readyz")).status == 200
    finally:
        await site.leave()
        await node.stop()


def test_the_shell_lines_of_the_documents_name_both_roles() -> None:
    [shell] = [block for block in documented("sh") if "migrate" in block]
    assert "PAIRING_MIGRATE_DATABASE_URL=postgresql://pairing_owner:" in shell
    assert "PAIRING_DATABASE_URL=postgresql://pairing:" in shell
