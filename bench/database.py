"""The cells of the table that are about the database: pairings a second, beside what they are made of."""

from __future__ import annotations

import re
import subprocess

from bench import statements
from bench.loads import JobFailed, Values
from bench.machine import two_cores
from bench.ours import OURS
from bench.run import Run
from bench.servers import Server
from pairing_server.db.embedded.postgres import DATABASE, find_programs

PAIRINGS = "pairings"
POSTS = "bare JSON POSTs"
PGBENCH = "pgbench, the same SQL"
GROWTH = "pairings among {:,} live codes"

AT_ONCE = 16
_PGBENCH_USERS = 250
_SHOWN = "{rate:,.0f}/s, {cpu_us:,.0f} µs CPU each, p99 {p99_ms:.0f} ms"

_ADD_PGBENCH_USERS = f"""
    INSERT INTO users (id, username, username_key, password_hash, role, created_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'pgbench-' || n, 'pgbench-' || n, 'none', 'user', now()
    FROM generate_series(1, {_PGBENCH_USERS}) AS n
"""


def _requests(run: Run, server: Server, users: list[str], path: str = "") -> Values:
    plan = {
        "port": server.port,
        "server_pid": server.pid,
        "at_once": AT_ONCE,
        "warm_up": run.scale.warm_up * 3,
        "seconds": run.scale.seconds * 2,
    }
    return run.load.do("posts", plan=plan, users=users, path=path)


def _pairings(run: Run, server: Server) -> Values:
    """Each pairing is another user's, from another address. Raises JobFailed."""
    values = _requests(run, server, [user.access for user in run.site.users(1000)])
    if values["failed"]:
        raise JobFailed(f"{values['failed']:.0f} requests were refused, {values['acts']:.0f} pairings made")
    return values


def pairings(run: Run) -> None:
    """Pairings over HTTP, an empty POST to stock Tornado, and the same SQL alone."""
    ours, tornado = run.servers.get(OURS), run.servers.get("tornado")
    for _ in range(run.scale.rounds):
        if ours is not None:
            run.record(PAIRINGS, ours, lambda: _pairings(run, ours), _SHOWN)
        if tornado is not None:
            run.record(POSTS, tornado, lambda: _requests(run, tornado, [], "/post"), _SHOWN)
    try:
        rate = _pgbench(run)
    except JobFailed as error:
        run.skip(PGBENCH, str(error))
        return
    run.keep(PGBENCH, "postgresql", "PostgreSQL", {"rate": rate})
    run.say(f"{PGBENCH}: {rate:,.0f}/s")


def _pgbench(run: Run) -> float:
    """Pairings a second that pgbench makes on the server's core, the database on the other. Raises JobFailed."""
    program = find_programs() / "pgbench"
    if not program.exists():
        raise JobFailed("pgbench is not installed")
    run.site.execute(_ADD_PGBENCH_USERS)
    core, _ = two_cores()
    socket_folder = run.site.url.partition("?host=")[2].replace("%2F", "/")
    script = run.folder / "pairing.sql"
    script.write_text(statements.script())
    command = [
        *("taskset", "--cpu-list", str(core), str(program), "--no-vacuum", "--protocol=prepared"),
        *(f"--client={AT_ONCE}", f"--time={max(2, round(run.scale.seconds * 2))}"),
        *(f"--define=users={_PGBENCH_USERS}", f"--file={script}"),
        *(f"--host={socket_folder}", "--username=postgres", DATABASE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise JobFailed((done.stderr.strip().splitlines() or ["pgbench said nothing"])[-1][:200])
    return float(found[1])


def growth(run: Run) -> None:
    """How pairing grows with the codes that are live: of a million names ever fewer are free."""
    ours = run.servers.get(OURS)
    if ours is None:
        return
    there = 0
    for count in run.scale.live_codes:
        run.site.execute(
            "DELETE FROM pairings WHERE ended_at IS NULL AND desktop_session NOT LIKE 'waiting-%'"
        )
        run.site.add_live_codes(count - there)
        there = count
        run.record(GROWTH.format(count), ours, lambda: _pairings(run, ours), _SHOWN)
