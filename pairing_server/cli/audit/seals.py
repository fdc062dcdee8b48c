"""audit key, audit verify, audit rebase: the seals of the audit log."""

from __future__ import annotations

from pathlib import Path

import click

from pairing_server import logs
from pairing_server.audit.seals import Report, SealFormatError, format_key, parse_key, verify_export
from pairing_server.audit.seals.memory import read_copies
from pairing_server.audit.seals.sealer import NotTheOwner
from pairing_server.cli.epilog import epilog
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


class PublicKey(click.ParamType[bytes]):
    """A public key, as `audit key` prints it."""

    name = "public key"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        try:
            return value if isinstance(value, bytes) else parse_key(str(value))
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
        click.echo(format_key(config.audit_seal_key.public))


@click.command(
    "verify",
    epilog=epilog(
        {
            "pairing-server audit verify": "the database, from its first seal on",
            "pairing-server audit verify --copies seals.jsonl": "also against the copies kept elsewhere",
            'pairing-server audit verify --from-export november.jsonl --key "$(cat seals.pub)"': "anywhere",
        },
        _VERIFYING,
        "0 every seal fits; 1 one does not, which is named, or it cannot be verified; 2 wrong use",
    ),
)
@click.option("--from-export", type=_FILE, help="Verify this export instead of the database; needs --key.")
@click.option("--key", "keys", type=PublicKey(), multiple=True, help="A public key that is trusted, too.")
@click.option("--copies", type=_FILE, help="Compare with this file of copies (PAIRING_AUDIT_SEAL_COPY).")
def verify(from_export: Path | None, keys: tuple[bytes, ...], copies: Path | None) -> None:
    """Compute every seal of the audit log anew. Exits 1 if one does not fit, and names it and its rows."""
    try:
        report = _of_export(from_export, keys) if from_export else _of_database(keys, copies)
    except (SealFormatError, OSError) as error:
        raise click.ClickException(f"The audit log cannot be verified: {error}") from None
    result = f"{report.seals} seals over {report.rows} rows are right."
    if report.months:
        result += f" Months: {', '.join(f'{month[:4]}-{month[4:]}' for month in report.months)}."
    if report.last is not None:
        result += f"\nThe last is seal {report.last.number} of {report.last.sealed_at}, digest {report.last.digest.hex()}."
    if report.fault is not None:
        click.echo(result)
        raise click.ClickException(_fault(report))
    click.echo(f"{result}\n{report.unsealed} rows are newer than the last seal.")


def _of_export(path: Path, keys: tuple[bytes, ...]) -> Report:
    if not keys:
        raise click.UsageError("--from-export needs --key: what `pairing-server audit key` prints.")
    with path.open("rb") as lines:
        return verify_export(lines, frozenset(keys))


def _of_database(keys: tuple[bytes, ...], copies: Path | None) -> Report:
    target = load_configuration().audit_seal_copy
    if copies is None and target and "://" not in target and Path(target).exists():
        copies = Path(target)
    known, trusted = read_copies(copies) if copies else {}, frozenset(keys)
    return run(
        lambda backend: backend.services.audit.verifier.verify(administrator(utcnow()), known, trusted)
    )


def _fault(report: Report) -> str:
    if report.fault is None:
        return ""
    lines = [f"Seal {report.fault.seal} {report.fault.what}."]
    if report.suspects:
        lines.append(f"Rows that are there now in its place ({report.n_suspects}):")
        lines += [f"  {each}" for each in report.suspects]
        if report.n_suspects > len(report.suspects):
            lines.append(f"  … and {report.n_suspects - len(report.suspects)} more")
    return "\n".join(lines)


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
    click.echo(f"The audit log goes on in epoch {epoch}. Whatever was sealed before stays so.")
    if strange:
        click.echo(
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
