"""The file of a backup: whatever is cut off, changed or exchanged in it is found, before a member of it is used."""

from __future__ import annotations

import asyncio
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairing_server.db.backup.archive import (
    BLOCK_BYTES,
    About,
    Contents,
    DamagedError,
    NotWrittenError,
    Partition,
    RowWriter,
    Table,
    Tables,
    Writer,
    members,
    read,
    rows_of,
    table_of,
)

ABOUT = About("1.0.0", "0007", "2026-01-31T00:00:00+00:00")
TABLES = Tables(
    {"users": Table(["id", "name"], 2), "audit_events": Table(["seq"], 0)},
    {"audit_events_number": 7},
    [Partition("audit_events_first", None, "2026-02-01T00:00:00+00")],
    3,
)
KEYS = {"jwt-keys": b"k1:a secret\n", "audit-seal-key": b"another\n"}


def made(rows: bytes = b"1\talice\n2\tbob\n") -> bytes:
    out = io.BytesIO()
    writer = Writer(out)
    writer.about(ABOUT)
    for name, data in KEYS.items():
        writer.add(name, data)
    with RowWriter(writer, "users") as block:
        asyncio.run(block(rows))
    writer.finish(TABLES)
    return out.getvalue()


WHOLE = made()
CONTENTS = Contents(ABOUT, TABLES, KEYS)


def test_what_was_written_is_read() -> None:
    assert read(io.BytesIO(WHOLE)) == CONTENTS
    blocks = {name: data for name, data in members(io.BytesIO(WHOLE)) if table_of(name)}
    assert {name: rows_of(data) for name, data in blocks.items()} == {
        "tables/users.1.gz": b"1\talice\n2\tbob\n"
    }


def test_long_tables_come_in_blocks() -> None:
    out = io.BytesIO()
    with RowWriter(Writer(out), "users") as block:
        for _ in range(3):
            asyncio.run(block(b"x" * BLOCK_BYTES))
    with tarfile.open(fileobj=io.BytesIO(out.getvalue()), ignore_zeros=True) as archive:
        assert archive.getnames() == ["tables/users.1.gz", "tables/users.2.gz", "tables/users.3.gz"]


def refused_or_whole(data: bytes) -> bool:
    """Whether it is refused; if not, nothing in it differs from what was saved."""
    try:
        found = list(members(io.BytesIO(data)))
        assert read(io.BytesIO(data)) == CONTENTS
    except DamagedError:
        return True
    assert found == list(members(io.BytesIO(WHOLE)))
    return False


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    end = WHOLE.rindex(b"tables.json\n") + len(b"tables.json\n")
    for length in range(end):
        assert refused_or_whole(WHOLE[:length]), length
    # What is after the last sum are zeros, which fill the last block.
    assert not WHOLE[end:].strip(b"\0")


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_byte_that_is_changed_is_found_or_means_nothing(position: int, change: int) -> None:
    changed = bytearray(WHOLE)
    changed[position] ^= change
    refused_or_whole(bytes(changed))


@given(st.integers(0, len(WHOLE) // 512), st.integers(0, 30))
def test_blocks_that_are_taken_out_are_missed(first: int, count: int) -> None:
    rest = WHOLE[: first * 512] + WHOLE[(first + count) * 512 :]
    # The zeros at the end are all that may be missing.
    assert refused_or_whole(rest) == (rest.rstrip(b"\0") != WHOLE.rstrip(b"\0"))


def rebuilt(parts: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in parts:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_members_that_are_left_out_exchanged_added_or_of_another_backup_are_found() -> None:
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as archive:
        parts = [(one.name, archive.extractfile(one).read()) for one in archive]  # type: ignore[union-attr]
    assert not refused_or_whole(rebuilt(parts))
    for index in range(len(parts)):
        assert refused_or_whole(rebuilt(parts[:index] + parts[index + 1 :])), "one is left out"
        assert refused_or_whole(rebuilt([*parts[:index], parts[index], *parts[index:]])), "one is there twice"
        for other in range(index):
            swapped = parts[:]
            swapped[index], swapped[other] = parts[other], parts[index]
            assert refused_or_whole(rebuilt(swapped)), "two have changed places"
            named = parts[:]
            named[index], named[other] = (
                (parts[index][0], parts[other][1]),
                (parts[other][0], parts[index][1]),
            )
            assert refused_or_whole(rebuilt(named)), "two have changed names"
    foreign = [(name, b"k2:foreign\n" if name == "jwt-keys" else data) for name, data in parts]
    assert refused_or_whole(rebuilt(foreign))
    assert refused_or_whole(rebuilt([*parts, ("more", b"")]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_files_are_read(kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("about.json")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DamagedError, match="something that is in no backup"):
        read(io.BytesIO(out.getvalue()))


def test_a_newer_form_of_the_file_says_so() -> None:
    with pytest.raises(DamagedError, match="its form is 3, and this release reads form 2"):
        read(io.BytesIO(rebuilt([("about.json", b'{"format": 3}')])))


def test_a_full_disk_is_no_error_of_the_database() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    writer = Writer(Full())
    with pytest.raises(NotWrittenError, match="No space left on device"):
        writer.add("jwt-keys", b"k" * 100_000)
