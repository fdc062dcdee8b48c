"""save → restore → verify on each version of PostgreSQL, as people have their databases: TLS, two roles, a schema of one's
own, and tables of another program beside ours."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from harness.postgres import Postgres, own_folder
from pairing_server.audit.seals import SealKey
from pairing_server.db import migrations
from pairing_server.db.embedded.postgres import find_programs
from tests.cli.commands import Operator
from tests.cli.serving import serving
from tests.conftest import execute
from tests.programs import needs

pytestmark = needs("/usr/lib/postgresql/15/bin/postgres")

PASSWORD = "a long enough password"
# The wheel of the embedded database brings two; the oldest that is supported is Debian's, and the only one with TLS.
PROGRAMS = {
    15: Path("/usr/lib/postgresql/15/bin"),
    16: find_programs().parents[1] / "pginstall" / "bin",
    18: find_programs(),
}
SEAL_KEY = SealKey.generate()[1]


@dataclass
class Place:
    """A server, and the folder with its certificate."""

    server: Postgres
    folder: Path
    tls: bool

    def url(self, role: str, database: str) -> str:
        query = f"?sslmode=verify-ca&sslrootcert={self.folder}/server.crt" if self.tls else ""
        return f"postgresql://{role}@127.0.0.1:{self.server.port}/{database}{query}"

    def make_database(self, name: str) -> None:
        """Ours and another program's, each with a schema of its own, and one table of the other's among ours."""
        execute(self.url("postgres", "postgres"), f"CREATE DATABASE {name} OWNER owner")
        execute(
            self.url("postgres", name),
            "CREATE SCHEMA app AUTHORIZATION owner",
            "REVOKE ALL ON SCHEMA public FROM owner, app",
            f"ALTER ROLE owner IN DATABASE {name} SET search_path = app",
            f"ALTER ROLE app IN DATABASE {name} SET search_path = app",
            "CREATE TABLE public.users (theirs text)",
            "INSERT INTO public.users VALUES ('a row of theirs')",
            "CREATE TABLE app.invoices (theirs text)",
            "INSERT INTO app.invoices VALUES ('another')",
            "GRANT SELECT ON app.invoices TO app",
            "CREATE TABLE app.alembic_version (version_num varchar(32) PRIMARY KEY)",
            "INSERT INTO app.alembic_version VALUES ('of theirs')",
        )

    def theirs(self, name: str) -> list[str]:
        async def ask() -> list[str]:
            connection = await asyncpg.connect(self.url("postgres", name))
            try:
                rows = await connection.fetch(
                    "TABLE public.users UNION ALL TABLE app.invoices UNION ALL TABLE app.alembic_version"
                )
                return [row[0] for row in rows]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def operator(self, database: str, folder: Path) -> Operator:
        return Operator(
            self.url("app", database),
            folder,
            MIGRATE_DATABASE_URL=self.url("owner", database),
            AUDIT_SEAL_KEY=SEAL_KEY,
            DATA_DIR=str(folder / "data"),
            PORT="0",
        )


@contextmanager
def running(version: int) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix=f"pairing-pg{version}-", dir="/tmp"))
    folder.chmod(0o755)
    tls = version == 15
    server = Postgres(own_folder(folder / "cluster"), PROGRAMS[version])
    try:
        server.make()
        if tls:
            server.use_tls(folder, "hostssl all all all trust\n")
        server.start()
        place = Place(server, folder, tls)
        execute(place.url("postgres", "postgres"), "CREATE ROLE owner LOGIN", "CREATE ROLE app LOGIN")
        yield place
    finally:
        if server.running:
            server.stop("immediate")
        server.reserved.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def places() -> Iterator[dict[int, Place]]:
    with ExitStack() as stack:
        yield {version: stack.enter_context(running(version)) for version in PROGRAMS}


# From each version to another one, an older one, too.
@pytest.mark.parametrize(("source", "target"), [(15, 18), (18, 16), (16, 15)])
def test_what_one_version_has_is_restored_on_another_and_verifies(
    places: dict[int, Place], tmp_path: Path, source: int, target: int
) -> None:
    before, after = places[source], places[target]
    before.make_database(f"from_{source}")
    after.make_database(f"of_{source}")
    old = before.operator(f"from_{source}", tmp_path)
    old.says("migrate")
    old.says("user", "add", "alice", stdin=PASSWORD)
    with serving(old.environ, tmp_path) as server:  # It seals when it stops.
        server.stop()
    assert f"revision {migrations.head()}" in old.says("backup", "saved.tar")
    new = after.operator(f"of_{source}", tmp_path)
    new.says("restore", "saved.tar")
    assert new.says("user", "list").startswith("alice\t")
    assert "seals over" in new.says("audit", "verify")
    new.says("user", "add", "bob", stdin=PASSWORD)
    assert "--replace" in new.refuses("restore", "saved.tar")
    new.says("restore", "--replace", "saved.tar")
    assert "bob" not in new.says("user", "list")
    new.says("user", "add", "carol", stdin=PASSWORD)
    assert "seals over" in new.says("audit", "verify")
    assert after.theirs(f"of_{source}") == ["a row of theirs", "another", "of theirs"]
    # The other program's rights among ours are not ours to take.
    execute(after.url("app", f"of_{source}"), "SELECT * FROM app.invoices")


def test_variables_of_libpq_say_where_the_database_is(places: dict[int, Place], tmp_path: Path) -> None:
    place = places[15]
    place.make_database("by_variables")
    operator = Operator("postgresql:///", tmp_path)
    operator.environ |= {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(place.server.port),
        "PGDATABASE": "by_variables",
        "PGUSER": "owner",
        "PGSSLMODE": "verify-ca",
        "PGSSLROOTCERT": f"{place.folder}/server.crt",
    }
    operator.says("migrate")
    operator.says("user", "add", "alice", stdin=PASSWORD)
    operator.says("backup", "saved.tar")
    operator.says("restore", "--replace", "saved.tar")
    assert operator.says("user", "list").startswith("alice\t")
