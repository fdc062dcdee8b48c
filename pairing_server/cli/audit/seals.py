"""audit key, audit verify, audit rebase: the seals of the audit log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from pairing_server import logs
from pairing_server.audit.seals import (
    Report,
    SealFormatError,
    TrustedKey,
    format_key,
    trusted_of,
    verify_export,
)
from pairing_server.audit.seals.memory import read_copies
from pairing_server.audit.seals.sealer import NotTheOwner
from pairing_server.audit.store.catalogue import NotATable
from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import say
from pairing_server.cli.runtime import (
    administrator,
    database,
    load_configuration,
    plain_errors,
    run,
    run_in_loop,
)
from pairing_server.clock import utcnow
from pairing_server.config import Configuration, with_seal_key
from pairing_server.db import roles
from pairing_server.server.backend import Backend


class PublicKey(click.ParamType[TrustedKey]):
    """A public key, as `audit key` prints it, and perhaps the last seal that it is trusted for."""

    name = "public key"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> TrustedKey:
        try:
            return value if isinstance(value, TrustedKey) else TrustedKey.parse(str(value))
        except SealFormatError as error:
            self.fail(str(error))


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_VERIFYING = "docs/audit.md, Verifying"


@click.command(
    "key",
    epilog=epilog(
        {"pairing-server audit key > seals.pub": "take it to the machine that verifies"}, _VERIFYING
    ),
)
def key() -> None:
    """Print the public key of the seals. Keep it elsewhere: it is needed to verify an export."""
    with plain_errors():
        config = with_seal_key(load_configuration())
    if config.audit_seal_key is not None:
        say(format_key(config.audit_seal_key.public))


@click.command(
    "verify",
    epilog=epilog(
        {
            "pairing-server audit verify": "the database, from its first seal on",
            "pairing-server audit verify --copies seals.jsonl": "also against the copies kept elsewhere",
            'pairing-server audit verify --from-export november.jsonl --key "$(cat seals.pub)"': "anywhere",
        },
        _VERIFYING,
        "0 all is right; 1 a seal or a row is not, and is named, or it cannot be verified; 2 wrong use",
    ),
)
@click.option("--from-export", type=_FILE, help="Verify this export instead of the database; needs --key.")
@click.option(
    "--key",
    "keys",
    type=PublicKey(),
    multiple=True,
    help="A public key that is trusted, too; KEY@N: up to seal N only.",
)
@click.option("--copies", type=_FILE, help="Compare with this file of copies (PAIRING_AUDIT_SEAL_COPY).")
@click.option(
    "--retention",
    type=click.IntRange(30),
    metavar="DAYS",
    help="How old months were when they were dropped, if that was less than PAIRING_AUDIT_RETENTION is now.",
)
def verify(
    from_export: Path | None, keys: tuple[TrustedKey, ...], copies: Path | None, retention: int | None
) -> None:
    """Compute every seal of the audit log anew. Exits 1 if one does not fit, and names it and its rows.

    Every row is looked at: it is in a seal, it waits for the next one, or it is reported. Rows that were dropped are
    excused by a sealed event audit.retention.
    """
    try:
        report = _of_export(from_export, keys) if from_export else _of_database(keys, copies, retention)
    except (SealFormatError, NotATable, OSError) as error:
        raise click.ClickException(f"The audit log cannot be verified: {error}") from None
    say("\n".join(_summary(report)))
    if not report.right:
        raise click.ClickException("\n".join(_faults(report)))


def _summary(report: Report) -> Iterator[str]:
    """What was looked at, and what is excused."""
    months = f" Months: {', '.join(map(_month, report.months))}." if report.months else ""
    yield f"{report.seals} seals over {report.rows} rows are right.{months}"
    if report.omitted:
        yield f"{report.omitted} rows of these seals are of other months, and are not in this export."
    if report.last is not None:
        yield f"The last is seal {report.last.number} of {report.last.sealed_at}, digest {report.last.digest.hex()}."
    seals = sum(excuse.seals for excuse in report.excused)
    rows = sum(excuse.rows for excuse in report.excused)
    yield f"{seals} seals over {rows} rows are excused{':' if report.excused else '.'}"
    for excuse in report.excused:
        months = f"{_month(excuse.months[0])} to {_month(excuse.months[-1])}"
        yield (
            f"  {months}, {excuse.seals} seals, {excuse.rows} rows: dropped, as event {excuse.row.seq} (audit.retention) in seal {excuse.seal} says"
        )
    if report.unseen is None:
        yield f"{report.unsealed} rows are newer than the last seal."
    if report.unsealed_since is not None:
        yield f"The oldest of them was recorded at {_utc(report.unsealed_since)}."
    if report.late:
        yield f"{report.late} rows had waited for their seal for more than an hour; until then only triggers guarded them."
    yield f"{report.n_strays} rows are reported."


def _month(month: str) -> str:
    return f"{month[:4]}-{month[4:]}"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _of_export(path: Path, keys: tuple[TrustedKey, ...]) -> Report:
    if not keys:
        raise click.UsageError("--from-export needs --key: what `pairing-server audit key` prints.")
    with path.open("rb") as lines:
        return verify_export(lines, trusted_of(keys))


def _of_database(keys: tuple[TrustedKey, ...], copies: Path | None, retention: int | None) -> Report:
    target = load_configuration().audit_seal_copy
    if copies is None and target and "://" not in target and Path(target).exists():
        copies = Path(target)
    known, trusted = read_copies(copies) if copies else {}, trusted_of(keys)

    async def work(backend: Backend) -> Report:
        verifier = backend.services.audit.verifier
        if retention is not None:
            verifier.days = retention
        return await verifier.verify(administrator(utcnow()), known, trusted)

    return run(work)


def _faults(report: Report) -> Iterator[str]:
    if report.fault is not None:
        yield f"Seal {report.fault.seal} {report.fault.what}."
    if report.unexcused[1]:
        yield "{} seals lack {} rows without an excuse.".format(*report.unexcused)
    if report.suspects:
        yield f"Rows that are there now in its place ({report.n_suspects}):"
        yield from _named(report.suspects, report.n_suspects)
    if report.unseen is not None:
        yield "What comes after it was not looked at" + (
            f": {report.unseen} seals." if report.unseen else "."
        )
    if report.strays:
        yield f"Rows that are not as a server records them ({report.n_strays}):"
        yield from _named(report.strays, report.n_strays)
    if report.irregularities:
        yield "The log's tables are not as `pairing-server migrate` makes them:"
        yield from (f"  {each}" for each in report.irregularities)


def _named(rows: Sequence[str], count: int) -> Iterator[str]:
    yield from (f"  {each}" for each in rows)
    if count > len(rows):
        yield f"  … and {count - len(rows)} more"


@click.command(
    "rebase",
    epilog=epilog(
        {
            "pairing-server audit rebase": "after a dump was loaded by other means than `restore`",
            "PAIRING_MIGRATE_DATABASE_URL=postgresql://owner@db/pairing pairing-server audit rebase": "with two roles",
        },
        "docs/audit.md, After a restore",
    ),
)
def rebase() -> None:
    """After the database was restored from a dump: begin a new epoch of the audit log, as the tables' owner."""
    config = load_configuration()
    logs.configure(config.log_format, "warning")
    with database(config) as (ready, url):
        owner = roles.owner_of(url) if ready.embedded else ready.migrate_database_url or url
        begin_epoch(ready, owner)


def begin_epoch(config: Configuration, owner: str) -> None:
    """Let the log begin a new epoch, by the owner's URL, and say so. Raises ClickException."""
    try:
        epoch, strange = run_in_loop(_rebase(config, owner))
    except NotTheOwner as error:
        raise click.ClickException(str(error)) from None
    say(f"The audit log goes on in epoch {epoch}. Whatever was sealed before stays so.")
    if strange:
        say(
            "It was sealed with another key than this server's: give `audit verify --key` the public key that you have kept."
        )


async def _rebase(config: Configuration, url: str) -> tuple[int, bool]:
    """The epoch, and whether what was sealed before was sealed with another key."""
    backend = Backend(config, url)
    audit = backend.services.audit
    try:
        # A dump that is months old has no place for what is recorded now.
        await audit.retention.make_partitions()
        sealer = audit.sealer
        before = await sealer.last()
        strange = before is not None and before.public_key != sealer.key.public
        return await sealer.rebase(administrator(utcnow())), strange
    finally:
        await backend.close()
