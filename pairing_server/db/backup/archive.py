"""The file of a backup: a tar archive that can be written and read as a stream.

Its members, in this order: `about.json`, the keys, the rows of each table as COPY writes them, in blocks
(`tables/users.1.gz`), `tables.json`, and `SHA256SUMS` with the checksums of all others. So a file that was cut, damaged or
put together from several is recognized. It is not signed: a person who can change the file can compute new sums.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO, Self

ABOUT = "about.json"
FORMAT = 2
_TABLES = "tables.json"
_SUMS = "SHA256SUMS"
_BLOCK = re.compile(r"tables/(.+)\.[0-9]+\.gz")
# A block has at least so many bytes before it is compressed; the last row of it may be long.
BLOCK_BYTES = 4 << 20
_MEMBER_BYTES = 256 << 20
# Of gzip: a tenth larger than at its best, in a fifth of the time.
_LEVEL = 3


class DamagedError(Exception):
    """The file is no whole backup; the text says what is wrong with it."""


class NotWrittenError(Exception):
    """The file cannot be written; the text says why."""


@dataclass(frozen=True, slots=True)
class About:
    """Which state was saved."""

    release: str
    revision: str
    made_at: str


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str]
    rows: int


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of the audit log, with the times (ISO 8601) between which its rows are; None: from the beginning."""

    name: str
    begins: str | None
    ends: str


@dataclass(frozen=True, slots=True)
class Tables:
    """What else is needed to load the rows."""

    tables: Mapping[str, Table]
    # The last number that each has given.
    sequences: Mapping[str, int]
    partitions: Sequence[Partition] = ()
    # The epoch of the audit log; None if its schema is older than epochs.
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """A whole backup but for the rows."""

    about: About
    tables: Tables
    keys: Mapping[str, bytes]


class Writer:
    """Writes the members to `out`, which need not be seekable."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._sums: list[str] = []

    def add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o600
        with _write_errors():
            self._out.write(member.tobuf() + data + bytes(-len(data) % tarfile.BLOCKSIZE))
        self._sums.append(_sum(name, data))

    def about(self, about: About) -> None:
        self.add(ABOUT, json.dumps({"format": FORMAT, **asdict(about)}).encode())

    def finish(self, tables: Tables) -> None:
        self.add(_TABLES, json.dumps(asdict(tables)).encode())
        self.add(_SUMS, "".join(self._sums).encode())
        with _write_errors():
            self._out.write(bytes(2 * tarfile.BLOCKSIZE))


class RowWriter:
    """Takes the rows of one table and adds them in blocks."""

    def __init__(self, archive: Writer, table: str) -> None:
        self._archive = archive
        self._table = table
        self._rows = bytearray()
        self._blocks = 0

    async def __call__(self, rows: bytes) -> None:
        self._rows += rows
        if len(self._rows) >= BLOCK_BYTES:
            self._add()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._add()

    def _add(self) -> None:
        if self._rows:
            self._blocks += 1
            self._archive.add(
                f"tables/{self._table}.{self._blocks}.gz", gzip.compress(self._rows, _LEVEL, mtime=0)
            )
            self._rows.clear()


def table_of(name: str) -> str | None:
    """The table whose rows are in the member of that name; None if it has none."""
    found = _BLOCK.fullmatch(name)
    return found[1] if found else None


def rows_of(block: bytes) -> bytes:
    try:
        return gzip.decompress(block)
    except (OSError, EOFError, zlib.error):
        raise DamagedError("the rows of a table cannot be read") from None


def members(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The members, each with its bytes. Raises DamagedError, in the end at the latest: until then no member can be trusted."""
    sums: list[str] = []
    last: tuple[str, bytes] = ("", b"")
    for name, data in _unchecked(file):
        if not sums and name == ABOUT:
            _check_format(data)
        if last[0] == _SUMS:
            raise DamagedError("it goes on after its end")
        if name != _SUMS:
            sums.append(_sum(name, data))
            yield name, data
        last = name, data
    if last[0] != _SUMS:
        raise DamagedError("its end is missing")
    if last[1] != "".join(sums).encode():
        raise DamagedError("its checksums are not those of its content")


def read(file: BinaryIO) -> Contents:
    """Read the whole file and check it. Raises DamagedError."""
    found = {name: data for name, data in members(file) if table_of(name) is None}
    try:
        about = json.loads(found.pop(ABOUT))
        del about["format"]
        return Contents(About(**about), _tables(json.loads(found.pop(_TABLES))), found)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DamagedError("a part of it is missing") from None


def _tables(given: Any) -> Tables:
    return Tables(
        {name: Table(**table) for name, table in given["tables"].items()},
        given["sequences"],
        [_partition(**one) for one in given["partitions"]],
        given["epoch"],
    )


def _partition(name: str, begins: str | None, ends: str) -> Partition:
    for time in filter(None, (begins, ends)):
        datetime.fromisoformat(time)
    return Partition(name, begins, ends)


def _check_format(about: bytes) -> None:
    try:
        found = json.loads(about).get("format")
    except (ValueError, AttributeError):
        raise DamagedError("it does not say what it is") from None
    if found is None:
        raise DamagedError("it is a dump of a release that saved with pg_dump; restore it with that release")
    if found != FORMAT:
        raise DamagedError(f"its form is {found}, and this release reads form {FORMAT}: use a newer release")


def _unchecked(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                data = (
                    archive.extractfile(member) if member.isreg() and member.size <= _MEMBER_BYTES else None
                )
                if data is None:
                    raise DamagedError("it holds something that is in no backup")
                yield member.name, data.read()
    except OSError as error:
        raise DamagedError(f"it cannot be read: {error.strerror or error}") from None
    except (tarfile.TarError, EOFError, ValueError):
        raise DamagedError("it is not in the form of a backup, or cut") from None


@contextmanager
def _write_errors() -> Iterator[None]:
    """An error of the file is not taken for one of the connection to the database."""
    try:
        yield
    except OSError as error:
        raise NotWrittenError(error.strerror or str(error)) from None


def _sum(name: str, data: bytes) -> str:
    """A line as sha256sum writes it."""
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n"
