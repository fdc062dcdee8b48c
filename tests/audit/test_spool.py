"""Audit events on disk: appended, read again, taken over from the dead, bounded, and whole or not there."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pairing_server.audit.spool import Segment, Spool

ROOT = Path(__file__).resolve().parents[2]


def opened(folder: Path, cap: int = 10_000) -> Spool:
    spool = Spool(folder / "spool", cap)
    spool.open(1000.0)
    return spool


def read(segment: Segment | None) -> list[bytes]:
    assert segment is not None
    lines, _ = segment.read(0, 1000)
    return lines


def test_lines_are_read_in_order_and_in_parts(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(5):
        assert spool.append(b"%d" % number, needed=False)
    spool.turn(1000.0)
    segment = spool.oldest()
    assert segment is not None
    first, offset = segment.read(0, 3)
    assert first == [b"0", b"1", b"2"]
    assert segment.read(offset, 3)[0] == [b"3", b"4"]
    assert spool.append(b"another file", needed=False)
    spool.drop(segment)
    assert spool.oldest() is None
    assert len(list((tmp_path / "spool").iterdir())) == 1


def test_lines_in_the_database_take_no_room(tmp_path: Path) -> None:
    spool = opened(tmp_path, cap=80)
    for _ in range(100):
        assert spool.append(b"x" * 50, needed=True)
        spool.clear()
    assert spool.size == 0
    spool.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_dead_process_leaves_its_lines_and_a_torn_last_one_is_left_out(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pairing_server.audit.spool import Spool\n"
        "s = Spool(Path(sys.argv[1])); s.open(0)\n"
        "s.append(b'one', needed=True); s.append(b'two', needed=True); os.write(s._file, b'thr')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    folder = tmp_path / "spool"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    spool = opened(tmp_path)
    assert read(spool.oldest()) == [b"one", b"two"]


def test_the_files_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    alive, other = opened(tmp_path), opened(tmp_path)
    alive.append(b"mine", needed=True)
    other = opened(tmp_path)
    assert other.oldest() is None
    alive.close()
    third = opened(tmp_path)
    assert read(third.oldest()) == [b"mine"]


def test_when_its_lines_began_to_go_into_the_database_is_remembered(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append(b"one", needed=True)
    spool.turn(1000.0)
    spool.close()  # as if it had been killed in the middle
    later = Spool(tmp_path / "spool")
    later.open(5000.0)
    segment = later.oldest()
    assert segment is not None
    assert segment.since == 1000


def test_the_last_eighth_is_reserved_for_needed_lines(tmp_path: Path) -> None:
    spool = opened(tmp_path, cap=800)
    written = sum(spool.append(b"x" * 9, needed=False) for _ in range(200))
    assert written == 70
    assert sum(spool.append(b"y" * 9, needed=True) for _ in range(200)) == 10
    assert spool.size == 800


def test_a_line_that_the_disk_refuses_is_not_written_in_part(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    assert spool.append(b"whole", needed=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        assert not spool.append(b"x" * 100, needed=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert spool.failure is not None
    assert spool.failure.errno == errno.EFBIG
    assert spool.append(b"after", needed=True)
    assert spool.failure is None
    spool.turn(1000.0)
    assert read(spool.oldest()) == [b"whole", b"after"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        Spool(tmp_path / "missing" / "spool").open(0.0)
