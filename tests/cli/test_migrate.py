"""migrate: from an empty or an older database to the schema of this release."""

from __future__ import annotations

import json
from pathlib import Path

from pairing_server.db import migrations
from tests.cli.commands import NO_DATABASE, Operator
from tests.conftest import execute


def test_an_empty_database_is_brought_to_the_newest_revision(empty_database: str, tmp_path: Path) -> None:
    operator = Operator(empty_database, tmp_path)
    told = operator.refuses("user", "list")
    assert f"The database is at revision none, this release needs {migrations.head()}." in told
    assert "Run: pairing-server migrate" in told
    assert operator.says("migrate") == f"The database is at revision {migrations.head()}.\n"
    assert operator.run("user", "list").status == 0


def test_migrating_again_changes_nothing(database_url: str, tmp_path: Path) -> None:
    operator = Operator(database_url, tmp_path)
    assert operator.says("migrate") == f"The database is at revision {migrations.head()}.\n"


def test_a_database_of_a_newer_release_is_left_alone(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    operator = Operator(database_url, tmp_path)
    assert "newer than this release knows" in operator.refuses("user", "list")
    assert "9999" in operator.refuses("migrate")


def test_an_unknown_revision_is_refused(empty_database: str, tmp_path: Path) -> None:
    assert "nonsense" in Operator(empty_database, tmp_path).refuses("migrate", "--revision", "nonsense")


def test_a_database_that_cannot_be_reached_is_told_without_its_password(tmp_path: Path) -> None:
    told = Operator(NO_DATABASE, tmp_path).refuses("migrate")
    assert "PAIRING_DATABASE_URL" in told
    assert "secret" not in told


def test_a_database_that_does_not_exist_is_named(database_url: str, tmp_path: Path) -> None:
    missing = database_url.replace("/test_", "/missing_test_")
    assert 'database "missing_test_' in Operator(missing, tmp_path).refuses("migrate")


def test_before_a_start_a_database_that_is_away_is_left_to_the_server(tmp_path: Path) -> None:
    done = Operator(NO_DATABASE, tmp_path).run("migrate", "--before-start")
    assert (done.status, done.out) == (0, "")
    event = json.loads(done.err)
    assert (event["level"], event["message"]) == ("WARNING", "migration left to serve")
    assert "PAIRING_DATABASE_URL" in event["reason"] and "secret" not in event["reason"]


def test_before_a_start_a_database_that_is_there_is_migrated(empty_database: str, tmp_path: Path) -> None:
    operator = Operator(empty_database, tmp_path)
    done = operator.run("migrate", "--before-start")
    assert (done.status, done.out) == (0, "")
    event = json.loads(done.err.splitlines()[-1])
    assert (event["message"], event["revision"]) == ("database migrated", migrations.head())
    assert operator.run("user", "list").status == 0


def test_before_a_start_what_is_wrong_is_an_event_of_the_log(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    done = Operator(database_url, tmp_path).run("migrate", "--before-start")
    assert (done.status, done.out) == (1, "")
    event = json.loads(done.err.splitlines()[-1])
    assert event["message"] == "ended" and "9999" in event["error"]


def test_before_a_start_the_embedded_database_is_left_to_the_server(tmp_path: Path) -> None:
    operator = Operator("", tmp_path, DATA_DIR=str(tmp_path / "data"))
    done = operator.run("migrate", "--before-start")
    assert (done.status, json.loads(done.err)["message"]) == (0, "migration left to serve")
    assert not (tmp_path / "data").exists()
