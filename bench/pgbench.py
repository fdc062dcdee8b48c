"""A pairing as pgbench does it: the statements that the server sends, with pgbench's variables for values."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from bench.load import JobFailed
from bench.run import Run
from pairing_server.audit.queue import EventQueue
from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import BEGIN_PLANNED, Database
from pairing_server.db.embedded.postgres import DATABASE, find_programs
from pairing_server.request_context import RequestContext
from pairing_server.store import codes
from pairing_server.store.codes import CodeRequest, Draw, RedeemRequest
from pairing_server.store.pairings import Seat

USERS = 250
_ADD_USERS = f"""
    INSERT INTO users (id, username, username_key, password_hash, role, created_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'pgbench-' || n, 'pgbench-' || n, 'none', 'user', now()
    FROM generate_series(1, {USERS}) AS n
"""

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)
USER, NEW = uuid4(), uuid4()
DESKTOP, MOBILE = Seat("desktop-of-pgbench", str(USER)), Seat("mobile-of-pgbench", str(USER))
CALLER = "the user's login"
# How many codes the server draws at once.
DRAWS = 8

_USER = "lpad(to_hex(:user::bigint), 32, '0')::uuid"
_EXPRESSIONS: Mapping[object, str] = {
    NOW: "now()",
    LATER: "(now() + interval '10 minutes')",
    USER: _USER,
    NEW: "gen_random_uuid()",
    str(USER): f"{_USER}::text",
    CALLER: (
        f"json_build_object('account', {_USER}, 'subject', {_USER}, 'issuer', 'pairing-server', 'login_id', 'a',"
        " 'token_id', 'b', 'logged_in_at', now())"
    ),
    DESKTOP.session_id: "('desktop-' || :device::bigint)",
    MOBILE.session_id: "('mobile-' || :device::bigint)",
    **{bytes([number]): f"sha256(int8send(:device::bigint + {number}))" for number in range(DRAWS)},
}


def _sql(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"ARRAY[{', '.join(map(_sql, value))}]"
    if not isinstance(value, bool | int) and value in _EXPRESSIONS:
        return _EXPRESSIONS[value]
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool | int):
        return str(value).lower()
    raise TypeError(f"no SQL for {value!r}")


def _statement(store: Callable[[Any], Any]) -> str:
    """The statement that `store` sends by its argument, its values in place, on one line: pgbench ends it there."""
    sent: list[str] = []

    async def fetch(statement: str, *values: object, **_: str) -> None:
        placed = re.sub(r"\$(\d+)", lambda found: _sql(values[int(found[1]) - 1]), statement)
        sent.append(" ".join(placed.split()))
        raise LookupError

    try:
        asyncio.run(store(fetch))
    except LookupError:
        return sent[0]
    raise RuntimeError("nothing was sent")


def script() -> str:
    """What pgbench repeats; `:users` is the number of users."""
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none")
    log = AuditLog("pgbench", "1", EventQueue(nowhere, nowhere))
    context = RequestContext(NOW, kind="user", subject=str(USER), address="10.0.0.1", request_id=UUID(int=1))
    drawn = [Draw(bytes([number]), (bytes([number]),)) for number in range(DRAWS)]
    wanted = CodeRequest(
        pairing_id=NEW,
        desktop=DESKTOP,
        caller=CALLER,
        now=NOW,
        expires_at=LATER,
        most_waiting=1000,
        bound=log.draft("session.bound", "success", context, session_id="s" * 40, device_type="desktop"),
        made=log.draft("pairing.code_created", "success", context, desktop_session="s" * 40, expires_at=NOW),
    )
    typed = RedeemRequest(
        macs=[bytes([0])],
        mobile=MOBILE,
        caller=CALLER,
        now=NOW,
        same_user=True,
        limits=[("redeem_user", str(USER), "binding")],
        bound=log.draft("session.bound", "success", context, session_id="s" * 40, device_type="mobile"),
        won=log.draft("pairing.redeem", "success", context, mobile_session="s" * 40),
        confirm=False,
    )
    return "\n".join(
        (
            "\\set user random(1, :users)",
            "\\set device random(1, 1000000000000)",
            f"{_statement(lambda fetch: codes.make(fetch, wanted, drawn))};",
            *(f"{part};" for part in BEGIN_PLANNED.split("; ")),
            f"{_statement(lambda fetch: codes.redeem(fetch, typed))};",
            "COMMIT;",
            "",
        )
    )


def pairings_a_second(run: Run, clients: int) -> float:
    """The rate of pgbench on the server's core, the database on the other. Raises JobFailed."""
    program = find_programs() / "pgbench"
    if not program.exists():
        raise JobFailed("pgbench is not installed")
    run.database.execute(_ADD_USERS)
    socket_folder = run.database.url.partition("?host=")[2].partition("&")[0].replace("%2F", "/")
    file = run.folder / "pairing.sql"
    file.write_text(script())
    command = [
        *("taskset", "--cpu-list", str(run.server_core), str(program), "--no-vacuum", "--protocol=prepared"),
        *(f"--client={clients}", f"--time={max(2, round(run.scale.seconds * 2))}"),
        *(f"--define=users={USERS}", f"--file={file}"),
        *(f"--host={socket_folder}", "--username=postgres", DATABASE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise JobFailed((done.stderr.strip().splitlines() or ["pgbench printed nothing"])[-1][:200])
    return float(found[1])
