"""backup and restore: what was saved is there again, and nothing is lost by accident."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.program import environment, program
from pairing_server.audit.seals import SealKey
from pairing_server.db import migrations
from tests.cli.commands import NO_DATABASE, Operator, command
from tests.cli.serving import serving
from tests.conftest import execute, fresh_database

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


def test_data_are_lost_only_on_request(saved: Path, database_url: str, tmp_path: Path) -> None:
    operator = Operator(database_url, tmp_path)
    operator.says("user", "add", "bob", stdin=PASSWORD)
    assert "--replace" in operator.refuses("restore", "saved.tar")
    assert "bob" in operator.says("user", "list")
    operator.says("restore", "--replace", "saved.tar")
    assert "bob" not in operator.says("user", "list")
    assert "alice" in operator.says("user", "list")


def test_a_load_that_fails_changes_nothing(saved: Path, database_url: str, tmp_path: Path) -> None:
    with tarfile.open(saved) as archive:
        archive.extractall(tmp_path / "parts", filter="data")
    dump = tmp_path / "parts" / "database"
    dump.write_bytes(dump.read_bytes()[:-4000])
    with tarfile.open(tmp_path / "cut.tar", "w") as archive:
        for path in (tmp_path / "parts").iterdir():
            archive.add(path, path.name)
    operator = Operator(database_url, tmp_path)
    assert "has failed" in operator.refuses("restore", "--replace", "cut.tar")
    assert "alice" in operator.says("user", "list")


def test_a_server_that_is_connected_is_not_pulled_from_under(
    saved: Path, database_url: str, tmp_path: Path
) -> None:
    operator = Operator(database_url, tmp_path, PORT="0")
    with serving(operator.environ, tmp_path) as server:
        assert "Stop it first" in operator.refuses("restore", "--replace", "saved.tar")
        assert server.status("/readyz") == 200
        server.stop()


def test_a_backup_of_a_newer_release_is_refused(saved: Path, other_database: str, tmp_path: Path) -> None:
    with tarfile.open(saved) as archive:
        archive.extractall(tmp_path / "parts", filter="data")
    about = tmp_path / "parts" / "about.json"
    about.write_text(about.read_text().replace(f'"{migrations.head()}"', '"9999"'))
    with tarfile.open(tmp_path / "newer.tar", "w") as archive:
        for path in (tmp_path / "parts").iterdir():
            archive.add(path, path.name)
    told = Operator(other_database, tmp_path).refuses("restore", "newer.tar")
    assert f"(9999) is newer than this release knows ({migrations.head()})" in told


def test_a_file_that_is_no_backup_is_refused(other_database: str, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear all")
    told = Operator(other_database, tmp_path).refuses("restore", "letter.txt")
    assert "letter.txt is no backup of this server, or it is incomplete." in told


def test_an_empty_database_has_nothing_to_save(other_database: str, tmp_path: Path) -> None:
    told = Operator(other_database, tmp_path).refuses("backup", "nothing.tar")
    assert "has no schema yet" in told
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    told = Operator(NO_DATABASE, tmp_path).refuses("backup", "away.tar")
    assert "psql has failed" in told
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
