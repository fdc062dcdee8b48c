"""doctor: pairs two devices with a running server and reports each step in a line.

The steps are in steps.py; this file runs and reports them. Tokens, passwords and the code are never shown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import click

from pairing_server import logs
from pairing_server.cli.doctor import checks
from pairing_server.cli.doctor.checks import Finding
from pairing_server.cli.doctor.client import TrialPairing, UnexpectedAnswer
from pairing_server.cli.doctor.steps import Step, steps_of
from pairing_server.cli.epilog import epilog
from pairing_server.cli.runtime import administrator, load_configuration, read_password, run, run_in_loop
from pairing_server.client import ClientError, NotAPairingServer, NotReachable, ServerError, base_url
from pairing_server.clock import utcnow
from pairing_server.config import Configuration
from pairing_server.text import plain

_HINTS = {
    "RATE_LIMITED": "That is a limit of the server, not a fault. Wait, then try again.",
    "UNAVAILABLE": "The server is stopping or its database is away; its log says which.",
    "INTERNAL": "The server has failed; its log says where.",
}


@click.command(
    epilog=epilog(
        {
            "pairing-server doctor": "the server of these settings; makes an account, and deletes it",
            "pairing-server doctor --url https://pair.example --username alice": "another; asks for the password",
        },
        "docs/operations.md, Knowing that it is right",
        "0 all is right, findings or not; 1 a step has failed, and what to do is said; 2 wrong use",
    )
)
@click.option("--url", help="The server; without it, PAIRING_PUBLIC_URL of the settings.")
@click.option("--username", help="An account to use; without it, one is made and deleted again.")
@click.option(
    "--password",
    help="Its password, which other users of this machine can see in the list of processes; "
    "`-` reads a line of standard input, and without the option it is asked for.",
)
def doctor(url: str | None, username: str | None, password: str | None) -> None:
    """Check the settings, then pair two devices with the running server.

    Prints a line for each step. Ends with status 0 if all is right, else with 1, and says what was expected,
    what came instead and what to do. What works but is risky is marked with `!`; that is no failure.

    With --url, only the pairing is tried. Without it, run this as the server runs: in its folder, with its
    environment; for a service, `sudo pairing-server doctor`.
    """
    if password is not None and username is None:
        raise click.UsageError("--password needs --username.")
    if username is not None and password in (None, "-"):
        password = read_password(terminal=password is None)
    config = load_configuration() if url is None else None
    where = _where(config.public_url if config is not None else url or "")
    logs.configure("text", "critical")
    if config is not None:
        _configuration(config)
    trial = TrialPairing(where, username, password)
    if trial.throw_away and config is not None and config.registration != "open":
        _make_account(trial)
    if not run_in_loop(_examine(trial)):
        sys.exit(1)


def _make_account(trial: TrialPairing) -> None:
    """As `user add` makes it, since registration is closed."""
    run(
        lambda backend: backend.services.accounts.add_user(
            administrator(utcnow()), trial.username, trial.password, "user"
        )
    )
    trial.made = True


def _configuration(config: Configuration) -> None:
    """Check the configuration, and the database that it names."""
    report = Report(0)
    found = checks.check_configuration(config, os.environ)
    if config.database_url is not None:
        found += run_in_loop(checks.check_database(config))
    report.line(f"Settings: {len(found)} findings" if found else "Settings: nothing to say against them")
    report.findings(found)


def _where(url: str) -> str:
    try:
        return base_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None


async def _examine(trial: TrialPairing) -> bool:
    """Take the steps until one fails. True if none does."""
    steps = steps_of(trial)
    report = Report(max(len(step.title) for step in steps))
    report.line(f"Pairing server at {trial.desktop.url}\n")
    began = time.perf_counter()
    try:
        for step in steps:
            if not await _take_step(step, trial, report):
                return False
        took = time.perf_counter() - began
        await _report_connection(trial, report)
    finally:
        await trial.end()
        if trial.made:
            report.line(
                f"\nThe account {trial.username} could not be deleted; delete it with: pairing-server user delete {trial.username}"
            )
    report.line(f"\nAll right: {len(steps)} steps in {_ms(took).strip()}.")
    return True


async def _report_connection(trial: TrialPairing, report: Report) -> None:
    """Report how the server sees this client. A server that does not say is no failure."""
    with suppress(ClientError):
        report.line(f"\n{_printable(await checks.address_seen(trial.desktop))}")
        report.findings(await checks.check_connection(trial.desktop))


async def _take_step(step: Step, trial: TrialPairing, report: Report) -> bool:
    began = time.perf_counter()
    fault: UnexpectedAnswer | ClientError | None = None
    try:
        await step.work(trial)
    except (UnexpectedAnswer, ClientError) as error:
        fault = error
    report.step(step.title, time.perf_counter() - began, right=fault is None)
    if fault is None:
        return True
    expected = fault.expected if isinstance(fault, UnexpectedAnswer) else step.expected
    report.fault(
        trial.without_secrets(expected), trial.without_secrets(_what_came(fault)), _hint(step, fault)
    )
    return False


def _what_came(fault: UnexpectedAnswer | ClientError) -> str:
    reasons = fault.details.get("reasons") if isinstance(fault, ServerError) else None
    return (
        f"{fault} ({', '.join(map(str, reasons))})" if isinstance(reasons, list) and reasons else str(fault)
    )


def _hint(step: Step, fault: UnexpectedAnswer | ClientError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(fault):
        return "If an authority of your own made its certificate, set SSL_CERT_FILE to the authority's file."
    if isinstance(fault, NotReachable):
        return (
            "Start it with `pairing-server serve`, or say where it is with --url"
            " (https only where a proxy before it speaks TLS)."
        )
    if isinstance(fault, NotAPairingServer):
        return "Is --url the pairing server's? A proxy before it must pass all paths and the WebSocket on."
    if isinstance(fault, ServerError) and fault.code in _HINTS:
        wait = f" Seconds to wait: {fault.retry_after:.0f}." if fault.retry_after else ""
        return _HINTS[fault.code] + wait
    return step.hint


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:8.1f} ms"


@dataclass(frozen=True, slots=True)
class Report:
    """Prints aligned lines, in colour on a terminal, with characters that the output can show."""

    width: int

    def step(self, title: str, seconds: float, *, right: bool) -> None:
        sign = ("\u2713" if right else "\u2717") if self._shows("\u2713\u2717") else ("+" if right else "x")
        self.line(
            f"  {click.style(sign, fg='green' if right else 'red')}  {title:{self.width}} {_ms(seconds)}"
        )

    def fault(self, expected: str, came: str, hint: str) -> None:
        self.line(
            f"\n     expected  {_printable(expected)}\n     came      {_printable(came)}\n     hint      {hint}"
        )

    def findings(self, found: Sequence[Finding]) -> None:
        for finding in found:
            sign = click.style("!", fg="yellow")
            self.line(f"  {sign}  {_printable(finding.problem)}\n     to do     {_printable(finding.remedy)}")
        if found:
            self.line("")

    def line(self, text: str) -> None:
        encoding = sys.stdout.encoding or "ascii"
        plain = text.encode(encoding, "replace").decode(encoding)
        click.echo(plain, color=False if os.environ.get("NO_COLOR") else None)

    @staticmethod
    def _shows(signs: str) -> bool:
        try:
            signs.encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return False
        return True


def _printable(text: str) -> str:
    """A text of an unknown server must neither control the terminal nor flood it."""
    return plain(text[:500])
