"""backup and restore: what was saved is there again, and nothing is lost by accident."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import environment, program
from pairing_server.audit.seals import SealKey
from pairing_server.clock import utcnow
from pairing_server.db import last_backup, migrations, roles
from tests.cli.commands import NO_DATABASE, Operator, command
from tests.cli.serving import serving
from tests.conftest import as_running, execute, fetch, fresh_database

PASSWORD = "a long enough password"


@pytest.fixture
def saved(database_url: str, tmp_path: Path) -> Path:
    """A backup of a database with the account alice, who has been disabled: two audit events."""
    operator = Operator(database_url, tmp_path)
    operator.says("user", "add", "alice", stdin=PASSWORD)
    operator.says("user", "disable", "alice")
    told = operator.says("backup", "saved.tar")
    assert told.startswith(f"Saved the database at revision {migrations.head()} in saved.tar (")
    return tmp_path / "saved.tar"


@pytest.fixture
def other_database(postgres: str) -> Iterator[str]:
    yield from fresh_database(postgres, "template0")


def test_what_was_saved_is_there_again_in_an_empty_database(
    saved: Path, other_database: str, tmp_path: Path
) -> None:
    operator = Operator(other_database, tmp_path)
    restored, epoch = operator.says("restore", "saved.tar").splitlines()
    assert restored.endswith(f"the database is at revision {migrations.head()}.")
    assert epoch == "The audit log goes on in epoch 2. Whatever was sealed before stays so."
    assert operator.says("user", "list").split("\t")[:3] == ["alice", "user", "disabled"]
    events = operator.says("audit", "list", "--json")
    assert "account.created" in events and "account.disabled" in events
    # What protects the audit log has come along.
    with pytest.raises(Exception, match="append"):
        execute(other_database, "UPDATE audit_events SET outcome = 'failure'")


def test_a_backup_is_readable_for_its_owner_alone_and_never_overwritten(
    saved: Path, database_url: str
) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600
    before = saved.read_bytes()
    told = Operator(database_url, saved.parent).refuses("backup", "saved.tar")
    assert "saved.tar exists already" in told
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["data", "saved.tar"]


def test_a_backup_is_noted_for_the_server_and_one_that_fails_is_not(
    database_url: str, other_database: str, tmp_path: Path
) -> None:
    operator = Operator(database_url, tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    Operator(other_database, tmp_path).refuses("backup", "empty.tar")
    assert last_backup.read(data) is None
    begun = utcnow()
    operator.says("backup", "saved.tar")
    noted = last_backup.read(data)
    assert noted is not None and begun <= noted <= utcnow()


def test_data_are_lost_only_on_request(saved: Path, database_url: str, tmp_path: Path) -> None:
    operator = Operator(database_url, tmp_path)
    operator.says("user", "add", "bob", stdin=PASSWORD)
    assert "--replace" in operator.refuses("restore", "saved.tar")
    assert "bob" in operator.says("user", "list")
    operator.says("restore", "--replace", "saved.tar")
    assert "bob" not in operator.says("user", "list")
    assert "alice" in operator.says("user", "list")


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def put_together(parts: dict[str, bytes], file: Path) -> Path:
    """A backup of these members, with the checksums that fit."""
    parts.pop("SHA256SUMS", None)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in parts.items())
    with tarfile.open(file, "w") as archive:
        for name, data in {**parts, "SHA256SUMS": sums.encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def test_a_load_that_fails_changes_nothing(saved: Path, database_url: str, tmp_path: Path) -> None:
    parts = members(saved)
    rows = gzip.decompress(parts["tables/audit_events.1.gz"])
    parts["tables/audit_events.1.gz"] = gzip.compress(rows + rows)  # Each number is there twice.
    put_together(parts, tmp_path / "twice.tar")
    operator = Operator(database_url, tmp_path)
    operator.says("user", "add", "bob", stdin=PASSWORD)
    assert "The database refuses: duplicate key" in operator.refuses("restore", "--replace", "twice.tar")
    assert "bob" in operator.says("user", "list")


def test_rows_that_are_missing_are_counted(saved: Path, database_url: str, tmp_path: Path) -> None:
    parts = members(saved)
    rows = gzip.decompress(parts["tables/audit_events.1.gz"])
    parts["tables/audit_events.1.gz"] = gzip.compress(rows[: rows.index(b"\n") + 1])
    put_together(parts, tmp_path / "fewer.tar")
    operator = Operator(database_url, tmp_path)
    assert "Of 2 rows of audit_events 1 have arrived" in operator.refuses("restore", "--replace", "fewer.tar")


def test_a_file_that_is_cut_is_refused_before_anything_is_changed(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    """Also between two members, where a tar archive does not show it: every cut of tests/db/backup/test_archive.py."""
    whole = saved.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: whole.index(b"tables.json") // 512 * 512])
    operator = Operator(database_url, tmp_path)
    operator.says("user", "add", "bob", stdin=PASSWORD)
    told = operator.refuses("restore", "--replace", "cut.tar")
    assert "cut.tar is no backup of this server, or it is incomplete: its end is missing." in told
    told = operator.refuses("restore", "--replace", "-", stdin=whole[:-20_000])
    assert "- is no backup of this server, or it is incomplete" in told
    assert "bob" in operator.says("user", "list")


def test_keys_that_cannot_be_used_are_found_before_anything_is_changed(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    operator = Operator(database_url, tmp_path, JWT_KEYS="", DATA_DIR=str(tmp_path / "other"))
    operator.says("user", "add", "bob", stdin=PASSWORD)
    keys = (tmp_path / "other" / "jwt-keys").read_bytes()
    for name in ("jwt-keys", "audit-seal-key"):
        put_together({**members(saved), name: b"k1:short"}, tmp_path / f"{name}.tar")
        told = operator.refuses("restore", "--replace", f"{name}.tar")
        assert f"The keys ({name}) in {name}.tar are not usable:" in told
    assert "bob" in operator.says("user", "list")
    assert (tmp_path / "other" / "jwt-keys").read_bytes() == keys


def test_a_key_that_stays_and_cannot_be_used_is_found_before_anything_is_changed(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "audit-seal-key").write_text("no key")
    (tmp_path / "other" / "audit-seal-key").chmod(0o600)
    operator = Operator(database_url, tmp_path, DATA_DIR=str(tmp_path / "other"))
    Operator(database_url, tmp_path).says("user", "add", "bob", stdin=PASSWORD)
    assert "audit-seal-key is not usable" in operator.refuses("restore", "--replace", "saved.tar")
    assert "bob" in Operator(database_url, tmp_path).says("user", "list")


def test_keys_that_cannot_be_written_leave_the_database_as_it_is(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    put_together({**members(saved), "jwt-keys": f"k1:{'s' * 32}\n".encode()}, tmp_path / "keys.tar")
    (tmp_path / "file").touch()
    seal_key, folder = SealKey.generate()[1], str(tmp_path / "file")
    operator = Operator(database_url, tmp_path, JWT_KEYS="", DATA_DIR=folder, AUDIT_SEAL_KEY=seal_key)
    assert "file cannot be written: " in operator.refuses("restore", "--replace", "keys.tar")
    assert "alice" in Operator(database_url, tmp_path).says("user", "list")


def test_a_backup_without_keys_says_which_are_needed(
    saved: Path, other_database: str, tmp_path: Path
) -> None:
    done = Operator(other_database, tmp_path, JWT_KEYS="", DATA_DIR=str(tmp_path / "other")).run(
        "restore", "saved.tar"
    )
    assert done.status == 0 and "Set that to the same keys" in done.err


def test_a_dump_of_pg_dump_says_how_to_restore_it(other_database: str, tmp_path: Path) -> None:
    put_together({"about.json": b'{"revision": "0007"}', "database": b"PGDMP"}, tmp_path / "old.tar")
    told = Operator(other_database, tmp_path).refuses("restore", "old.tar")
    assert "a release that saved with pg_dump; restore it with that release" in told


def test_the_role_that_runs_the_server_can_save_and_is_told_that_it_cannot_restore(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    roles.make_running(database_url)
    operator = Operator(as_running(database_url), tmp_path)
    operator.says("backup", "by-the-server.tar")
    told = operator.refuses("restore", "--replace", "by-the-server.tar")
    assert "set PAIRING_MIGRATE_DATABASE_URL to the owner's URL" in told
    execute(database_url, "REVOKE SELECT ON users FROM pairing")
    told = operator.refuses("backup", "again.tar")
    assert "permission denied for table users. To save, it must be able to read all tables" in told


def test_what_servers_tell_each_other_is_not_restored(
    database_url: str, other_database: str, tmp_path: Path
) -> None:
    """It is named by transactions, which another database counts anew."""
    execute(database_url, "INSERT INTO pairing_changes VALUES ('999999999', gen_random_uuid(), now())")
    Operator(database_url, tmp_path).says("backup", "saved.tar")
    Operator(other_database, tmp_path).says("restore", "saved.tar")
    assert fetch(database_url, "SELECT xid::text FROM pairing_changes") == [("999999999",)]
    assert fetch(other_database, "SELECT xid FROM pairing_changes") == []


def test_tables_that_are_in_the_way_stay(saved: Path, other_database: str, tmp_path: Path) -> None:
    execute(other_database, "CREATE TABLE users (theirs text)", "INSERT INTO users VALUES ('theirs')")
    told = Operator(other_database, tmp_path).refuses("restore", "saved.tar")
    assert 'A table of another program is in the way: relation "users" already exists' in told
    assert fetch(other_database, "SELECT theirs FROM users") == [("theirs",)]


def test_a_view_that_needs_our_tables_is_not_taken_away(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    execute(database_url, "CREATE VIEW theirs AS SELECT username FROM users")
    told = Operator(database_url, tmp_path).refuses("restore", "--replace", "saved.tar")
    assert "Something that is not the server's needs its tables: view theirs depends on table users" in told
    assert len(fetch(database_url, "SELECT * FROM theirs")) == 1


def test_a_foreign_table_that_refers_to_ours_keeps_its_rows(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    execute(
        database_url,
        "CREATE TABLE theirs (of_user uuid REFERENCES users (id))",
        "INSERT INTO theirs SELECT id FROM users",
    )
    told = Operator(database_url, tmp_path).refuses("restore", "--replace", "saved.tar")
    assert 'Something that is not the server\'s needs its tables: Table "theirs" references "users"' in told
    assert len(fetch(database_url, "SELECT * FROM theirs")) == 1


def test_months_and_numbers_of_the_audit_log_are_those_that_were_saved(
    database_url: str, other_database: str, tmp_path: Path
) -> None:
    """Months that were dropped do not come again, and old ones have their place."""
    execute(
        database_url,
        "DROP TABLE audit_events_first CASCADE",
        "CREATE TABLE audit_events_202501 (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
        "ALTER TABLE audit_events ATTACH PARTITION audit_events_202501 FOR VALUES FROM ('2025-01-01+00') TO ('2025-02-01+00')",
        "INSERT INTO audit_events (recorded_at, occurred_at, event_id, event, severity, outcome, node, app_version,"
        " actor_kind, epoch) VALUES ('2025-01-05', now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user', 4)",
        "SELECT setval('audit_events_number', 1234)",
        "ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT 4",
        "SELECT audit_make_partitions(0)",
    )
    Operator(database_url, tmp_path).says("backup", "saved.tar")
    told = Operator(other_database, tmp_path).says("restore", "saved.tar")
    assert "goes on in epoch 5" in told
    execute(
        other_database,
        """DO $$ BEGIN
        ASSERT (SELECT min(name) FROM audit_partitions()) = 'audit_events_202501';
        ASSERT NOT EXISTS (SELECT FROM audit_partitions() WHERE name = 'audit_events_first');
        ASSERT (SELECT count(*) FROM audit_events_202501) = 1;
        ASSERT nextval('audit_events_number') > 1234;
        END $$""",
    )
    with pytest.raises(Exception, match="append-only"):
        execute(other_database, "TRUNCATE audit_events_202501")


def test_a_server_that_is_connected_is_not_pulled_from_under(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    operator = Operator(database_url, tmp_path, PORT="0")
    with serving(operator.environ, tmp_path) as server:
        assert "Stop it first" in operator.refuses("restore", "--replace", "saved.tar")
        assert server.status("/readyz") == 200
        server.stop()


def test_a_backup_of_a_newer_release_is_refused(saved: Path, other_database: str, tmp_path: Path) -> None:
    parts = members(saved)
    parts["about.json"] = parts["about.json"].replace(f'"{migrations.head()}"'.encode(), b'"9999"')
    put_together(parts, tmp_path / "newer.tar")
    told = Operator(other_database, tmp_path).refuses("restore", "newer.tar")
    assert f"(9999) is newer than this release knows ({migrations.head()})" in told


def test_a_file_that_is_no_backup_is_refused(other_database: str, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear all")
    told = Operator(other_database, tmp_path).refuses("restore", "letter.txt")
    assert "letter.txt is no backup of this server, or it is incomplete" in told


def test_an_empty_database_has_nothing_to_save(other_database: str, tmp_path: Path) -> None:
    told = Operator(other_database, tmp_path).refuses("backup", "nothing.tar")
    assert "has no schema yet" in told
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    told = Operator(NO_DATABASE, tmp_path).refuses("backup", "away.tar")
    assert "The database is not reachable" in told
    assert "secret" not in told


def test_the_embedded_database_moves_to_another_machine_with_its_keys() -> None:
    """By way of standard output and input, as it goes through ssh. As root PostgreSQL runs as another user."""
    place = Path(tempfile.mkdtemp(prefix="pairing-backup-", dir="/tmp"))
    try:
        old, new = (environment(DATA_DIR=str(place / name)) for name in ("old", "new"))
        assert command("user", "add", "alice", environ=old, folder=place, stdin=PASSWORD).status == 0
        with (place / "saved.tar").open("wb") as out:
            subprocess.run(program("backup", "-"), env=old, cwd=place, stdout=out, check=True)
        with (place / "saved.tar").open("rb") as given:
            subprocess.run(program("restore", "-"), env=new, cwd=place, stdin=given, check=True)
        assert command("user", "list", environ=new, folder=place).out.startswith("alice\t")
        keys = [(place / name / "jwt-keys") for name in ("old", "new")]
        assert keys[0].read_text() == keys[1].read_text()
        assert keys[1].stat().st_mode & 0o777 == 0o600
    finally:
        shutil.rmtree(place)


WITHOUT_TEMPORARY_FILES = """import sys, tempfile
tempfile._candidate_tempdir_list = lambda: ["/nonexistent"]
from pairing_server.cli import main
sys.argv[0] = "pairing-server"
main()
"""


def test_it_needs_no_folder_for_temporary_files(
    saved: Path, database_url: str, other_database: str, tmp_path: Path
) -> None:
    """As in a container whose root is read-only: only the data directory can be written to."""
    old = Operator(database_url, tmp_path, DATA_DIR=str(tmp_path / "data"))
    new = Operator(other_database, tmp_path, DATA_DIR=str(tmp_path / "data"))
    bare = [sys.executable, "-c", WITHOUT_TEMPORARY_FILES]
    made = subprocess.run([*bare, "backup", "-"], env=old.environ, capture_output=True, check=True)
    subprocess.run(
        [*bare, "restore", "-"], env=new.environ, input=made.stdout, capture_output=True, check=True
    )
    assert new.says("user", "list").startswith("alice\t")


# The seals of the audit log


def sealing(database_url: str, folder: Path, data: str) -> Operator:
    """An operator whose server makes its own key for the seals."""
    return Operator(database_url, folder, PORT="0", DATA_DIR=str(folder / data))


def seal(operator: Operator) -> None:
    """A server seals what is there when it stops."""
    with serving(operator.environ, operator.folder) as server:
        server.stop()


def seals_of(told: str) -> int:
    return int(told.partition(" seals over")[0])


def test_a_restored_log_verifies_at_once_and_after_the_next_start(
    database_url: str, other_database: str, tmp_path: Path
) -> None:
    before = sealing(database_url, tmp_path, "data")
    before.says("user", "add", "alice", stdin=PASSWORD)
    seal(before)
    public = before.says("audit", "key").strip()
    before.says("backup", "saved.tar")
    after = sealing(other_database, tmp_path, "other-machine")
    told = after.says("restore", "saved.tar")
    assert "sealed with another key than this server's: give `audit verify --key`" in told
    assert "is signed by a key that is not trusted" in after.run("audit", "verify").err
    first = seals_of(after.says("audit", "verify", "--key", public))
    assert first >= 1
    seal(after)
    assert seals_of(after.says("audit", "verify", "--key", public)) > first


def test_the_key_that_seals_goes_along_if_it_is_asked_for(
    database_url: str, other_database: str, tmp_path: Path
) -> None:
    before = sealing(database_url, tmp_path, "data")
    before.says("user", "add", "alice", stdin=PASSWORD)
    seal(before)
    before.says("backup", "without.tar")
    before.says("backup", "--with-seal-key", "with.tar")
    names = {}
    for name in ("without.tar", "with.tar"):
        with tarfile.open(tmp_path / name) as archive:
            names[name] = set(archive.getnames())
    assert names["with.tar"] - names["without.tar"] == {"audit-seal-key"}
    after = sealing(other_database, tmp_path, "other-machine")
    assert "another key" not in after.says("restore", "with.tar")
    assert after.says("audit", "key") == before.says("audit", "key")
    kept = tmp_path / "other-machine" / "audit-seal-key"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert seals_of(after.says("audit", "verify")) >= 1


def test_a_key_that_is_not_in_the_data_directory_cannot_go_along(database_url: str, tmp_path: Path) -> None:
    bare = sealing(database_url, tmp_path, "nothing-here")
    assert "There is no key that seals yet" in bare.refuses("backup", "--with-seal-key", "saved.tar")
    given = Operator(database_url, tmp_path, AUDIT_SEAL_KEY=SealKey.generate()[1])
    told = given.refuses("backup", "--with-seal-key", "saved.tar", status=2)
    assert "PAIRING_AUDIT_SEAL_KEY: keep that" in told
    assert not (tmp_path / "saved.tar").exists()


def test_after_a_step_back_on_the_same_machine_the_log_verifies_and_its_seals_are_copied_again(
    database_url: str, tmp_path: Path
) -> None:
    """What was sealed after the backup is lost with it: the machine must not miss it, and its numbers come again."""
    copies = tmp_path / "copies.jsonl"
    operator = Operator(
        database_url, tmp_path, PORT="0", DATA_DIR=str(tmp_path / "data"), AUDIT_SEAL_COPY=str(copies)
    )
    seal(operator)
    operator.says("backup", "saved.tar")
    for name in ("bob", "carol"):
        operator.says("user", "add", name, stdin=PASSWORD)
        seal(operator)
    lost = len(copies.read_text().splitlines())
    operator.says("restore", "--replace", "saved.tar")
    # Of what is lost the copies tell, as they should. Without them the machine's own memory counts.
    assert "is another one than was copied outside" in operator.run("audit", "verify").err
    copies.rename(tmp_path / "copies-before.jsonl")
    seals_of(operator.says("audit", "verify"))
    seal(operator)
    again = [json.loads(line)["seal"] for line in copies.read_text().splitlines()]
    assert again and again[0] <= lost and again == list(range(again[0], again[0] + len(again)))
    assert seals_of(operator.says("audit", "verify")) == again[-1]
