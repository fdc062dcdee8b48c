"""status: shows what the running servers of a data directory do."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import click

from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import say
from pairing_server.cli.runtime import load_configuration
from pairing_server.server.status import PATTERN

_SHOWN = 20
_TIMEOUT_SECONDS = 15


@click.command(
    epilog=epilog(
        {"pairing-server status": "one screen", "pairing-server status --json": "for programs"},
        "docs/operations.md, Watching it",
        "0 it runs; 1 none runs on this data directory; 2 wrong use",
    )
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each server, one a line.")
@click.option("--all", "all_devices", is_flag=True, help=f"List all devices (up to 1000), not only {_SHOWN}.")
def status(as_json: bool, all_devices: bool) -> None:
    """Show what the running server does: connections, channels, limits, database, audit log, devices.

    It asks the server through a socket that only the server's user and root can open, so it works while the database
    is away. For a service: sudo pairing-server status. Ends with status 1 if no server runs on this data directory.
    """
    folder = load_configuration().data_dir
    found = [answer for path in sorted(folder.glob(PATTERN)) if (answer := _ask(path)) is not None]
    if not found:
        raise click.ClickException(f"No server runs with the data directory {folder} (PAIRING_DATA_DIR).")
    for answer in found:
        say(json.dumps(answer) if as_json else _text(answer, 1000 if all_devices else _SHOWN))


def _ask(path: Path) -> dict[str, Any] | None:
    """The server's status; None if the server has gone and left its socket behind."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        try:
            connection.connect(str(path))
            parts = iter(lambda: connection.recv(65536), b"")
            status: dict[str, Any] = json.loads(b"".join(parts))
        except ConnectionRefusedError:
            return None
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{path} does not answer: {error}") from None
    return status


def _age(seconds: int) -> str:
    """In hours, or in days from two on."""
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _text(status: dict[str, Any], shown: int) -> str:
    database, audit = status["database"], status["audit"]
    pool, seal, saved = database["connections"], audit["last_seal"], database["backup_age_s"]
    channels, connections = status["channels"], status["connections"]
    limits = status["limits"]
    lines = [
        f"pairing-server {status['version']}, process {status['pid']}, {status['state']}",
        f"  connections  {connections['open']} of {connections['users']} users"
        f" ({connections.get('desktop', 0)} desktops, {connections.get('mobile', 0)} phones)",
        f"  channels     {channels.get('2', 0)} with both devices, {channels.get('1', 0)} with one,"
        f" {channels.get('0', 0)} with none; codes live: {status['codes_live']}",
        f"  limits       {limits['connections_per_user']} connections a user, {limits['connections_per_address']} an address;"
        f" {limits['message_rate']} messages a second; codes {limits['code_rate']}",
        f"  database     {'up' if database['up'] else 'away: ' + str(database['away_because'])};"
        f" {pool['used']} connections in use, {pool['idle']} idle, at most {pool['at_most']};"
        + (" no backup known" if saved is None else f" backup {_age(saved)} old"),
        f"  audit log    {audit['waiting']} events waiting, {audit['lost']} lost;"
        + (f" seal {seal['number']}, {seal['age_s']} s old" if seal else " no seal known"),
    ]
    devices = status["devices"][:shown]
    if devices:
        lines.append(f"\n  {'user':36}  {'device':7}  {'address':15}  {'for':>7}  {'messages':>8}  pairing")
    lines += [
        f"  {device['user'][:36]:36}  {device['device_type']:7}  {device['address'][:15]:15}  {device['connected_s']:>5} s"
        f"  {device['messages']:>8}  {device['pairing_id'] or '-'}"
        for device in devices
    ]
    if len(devices) < connections["open"]:
        lines.append(f"  … and {connections['open'] - len(devices)} more (--all)")
    return "\n".join(lines)
