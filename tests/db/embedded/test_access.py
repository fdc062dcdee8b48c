"""Who may reach the embedded PostgreSQL's files: mode bits on real folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pairing_server.db.embedded.access import (
    Account,
    EmbeddedPostgresError,
    close_cluster,
    make_readable,
    open_the_way,
    prepare_data_dir,
    socket_directory,
)

OURSELVES = Account(os.geteuid(), os.getegid(), is_other=False)
STRANGER = Account(54321, 54321, is_other=True)


@pytest.fixture
def run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which is open to all like the system's own."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def long_cluster(tmp_path: Path) -> Path:
    cluster = tmp_path / ("long" * 40)
    cluster.mkdir()
    return cluster


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_short_path_holds_its_own_socket() -> None:
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        assert socket_directory(Path(folder), OURSELVES) == Path(folder)


def test_a_long_path_gets_a_private_folder_and_finds_it_again(run_time: Path, long_cluster: Path) -> None:
    found = socket_directory(long_cluster, OURSELVES)
    assert (found.parent, mode(found)) == (run_time, 0o700)
    assert socket_directory(long_cluster, OURSELVES) == found


def test_a_private_run_time_folder_comes_first(
    run_time: Path, long_cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = run_time / "user"
    private.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private))
    assert socket_directory(long_cluster, OURSELVES).parent == private


def test_what_a_stranger_put_under_the_name_is_not_used(run_time: Path, long_cluster: Path) -> None:
    name = socket_directory(long_cluster, OURSELVES)
    name.chmod(0o777)
    assert socket_directory(long_cluster, OURSELVES) != name
    name.rmdir()
    (run_time / "trap").mkdir(mode=0o700)
    name.symlink_to(run_time / "trap")
    found = socket_directory(long_cluster, OURSELVES)
    assert found not in (name, run_time / "trap")
    assert mode(found) == 0o700


def test_the_way_is_opened_for_passing_and_not_for_listing(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    inner = closed / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o755)
    closed.chmod(0o700)
    changed = open_the_way(inner / "cluster", STRANGER)
    assert closed in changed
    assert inner not in changed
    assert (mode(closed), mode(inner)) == (0o701, 0o755)
    assert open_the_way(inner / "cluster", STRANGER) == []


def test_programs_and_their_files_become_readable_not_writable(tmp_path: Path) -> None:
    program, text = tmp_path / "program", tmp_path / "text"
    for path, bits in ((program, 0o700), (text, 0o600), (tmp_path, 0o700)):
        path.touch()
        path.chmod(bits)
    assert set(make_readable(tmp_path, STRANGER)) == {tmp_path, program, text}
    assert [mode(path) for path in (tmp_path, program, text)] == [0o705, 0o705, 0o604]


def test_a_new_data_folder_is_private(tmp_path: Path) -> None:
    prepare_data_dir(tmp_path / "new" / "data")
    assert mode(tmp_path / "new" / "data") == 0o700


def test_an_own_folder_that_others_can_list_is_closed(tmp_path: Path) -> None:
    (tmp_path / "key").touch(mode=0o600)
    tmp_path.chmod(0o755)
    prepare_data_dir(tmp_path)
    assert mode(tmp_path) == 0o700


@pytest.mark.parametrize("bits", [0o755, 0o1777])
def test_a_folder_shared_with_others_is_refused_and_left_as_it_is(tmp_path: Path, bits: int) -> None:
    (tmp_path / "public").touch(mode=0o644)
    tmp_path.chmod(bits)
    with pytest.raises(EmbeddedPostgresError, match="chmod go-rwx"):
        prepare_data_dir(tmp_path)
    assert mode(tmp_path) == bits


def test_a_group_has_its_rights_to_the_folder_where_it_may(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "key").chmod(0o660)
    tmp_path.chmod(0o2770)
    with pytest.raises(EmbeddedPostgresError, match="PAIRING_DATA_DIR_GROUP=true"):
        prepare_data_dir(tmp_path)
    prepare_data_dir(tmp_path, group=True)
    assert mode(tmp_path) == 0o2770
    tmp_path.chmod(0o2775)
    prepare_data_dir(tmp_path, group=True)
    assert mode(tmp_path) == 0o2770
    (tmp_path / "key").chmod(0o664)
    tmp_path.chmod(0o2775)
    with pytest.raises(EmbeddedPostgresError, match="which other users can list or change"):
        prepare_data_dir(tmp_path, group=True)


@pytest.mark.parametrize(("bits", "closed"), [(0o2770, 0o2700), (0o750, 0o750), (0o700, 0o700)])
def test_a_cluster_is_closed_as_postgresql_wants_it(tmp_path: Path, bits: int, closed: int) -> None:
    tmp_path.chmod(bits)
    close_cluster(tmp_path, group=True)
    assert mode(tmp_path) == closed


@pytest.mark.parametrize(("bits", "group"), [(0o770, False), (0o707, True), (0o755, True)])
def test_a_cluster_that_others_can_change_is_refused(tmp_path: Path, bits: int, group: bool) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(EmbeddedPostgresError, match="so PostgreSQL refuses it: chmod 700"):
        close_cluster(tmp_path, group=group)
    assert mode(tmp_path) == bits


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(EmbeddedPostgresError, match="which is a file"):
        prepare_data_dir(tmp_path / "data")
