"""PgBouncer, the real program, before a PostgreSQL of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.processes import port_of, reserved_port
from pairing_server.db.connection_parameters import read
from pairing_server.db.embedded.access import account_for

TIMEOUT_SECONDS = 10
_INI = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
max_client_conn = 200
default_pool_size = 20
"""


@contextmanager
def pgbouncer(folder: Path, url: str, mode: str) -> Iterator[int]:
    """Runs PgBouncer before the server of that URL; its port. `mode`: session, transaction or statement."""
    host, port = read(url, {}).places[0]
    reserved = reserved_port()
    listen = port_of(reserved)
    # It refuses to run as root, and the socket of an embedded database is for its user alone.
    account = account_for(folder / "account")
    users = ("postgres", "pairing")
    (folder / "users").write_text("".join(f'"{user}" ""\n' for user in users))
    (folder / "pgbouncer.ini").write_text(
        _INI.format(host=host, port=port or 5432, listen=listen, folder=folder, mode=mode)
    )
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.uid, account.gid)
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "pgbouncer"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            user=account.uid if account.is_other else None,
            group=account.gid if account.is_other else None,
            extra_groups=[] if account.is_other else None,
        )
    try:
        _await_port(process, listen, folder / "log")
        yield listen
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)
        reserved.close()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    raise AssertionError(f"PgBouncer does not listen; it says:\n{log.read_text(errors='replace')}")
