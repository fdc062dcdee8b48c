"""The benchmarks of the database: pairings a second, bare POSTs and pgbench beside them, and pairing among many codes."""

from __future__ import annotations

from functools import partial

from bench import pgbench, request_load
from bench.load import JobFailed, Values
from bench.run import Record, Run
from bench.servers import OURS, Server

PAIRINGS = "pairings"
POSTS = "bare JSON POSTs"
PGBENCH = "pgbench, the same SQL"
GROWTH = "pairings among {:,} live codes"

AT_ONCE = 16
_SHOWN = "{rate:,.0f}/s, {cpu_us:,.0f} µs CPU each, p99 {p99_ms:.0f} ms"


def _requests(run: Run, server: Server, users: list[str], path: str = "") -> Values:
    scale = run.scale
    plan = request_load.Plan(server.port, server.pid, AT_ONCE, scale.warm_up * 3, scale.seconds * 2)
    return run.load.do("requests", users=users, path=path, plan=plan)


def _pairings(run: Run, server: Server) -> Values:
    """Each pairing is another user's, from another address. Raises JobFailed."""
    values = _requests(run, server, [user.access for user in run.database.add_users(1000)])
    if values["failed"]:
        made = values["succeeded"]
        raise JobFailed(f"{values['failed']:.0f} requests were refused, {made:.0f} pairings made")
    return values


def pairings(run: Run) -> None:
    """Pairings over HTTP, a small POST to stock Tornado, and the same SQL alone."""
    ours, tornado = run.servers.get(OURS), run.servers.get("tornado")
    for _ in range(run.scale.rounds):
        if ours is not None:
            run.record(PAIRINGS, ours, partial(_pairings, run, ours), _SHOWN)
        if tornado is not None:
            run.record(POSTS, tornado, partial(_requests, run, tornado, [], "/post"), _SHOWN)
    try:
        rate = pgbench.pairings_a_second(run, AT_ONCE)
    except JobFailed as error:
        run.skip(PGBENCH, str(error))
    else:
        run.keep(Record(PGBENCH, "postgresql", "PostgreSQL", {"rate": rate}))
        run.say(f"{PGBENCH}: {rate:,.0f}/s")


def growth(run: Run) -> None:
    """How pairing slows down with the live codes: of a million codes ever fewer are free."""
    ours = run.servers.get(OURS)
    if ours is None:
        return
    live = 0
    for count in run.scale.live_codes:
        run.database.execute(
            "DELETE FROM pairings WHERE ended_at IS NULL AND desktop_session NOT LIKE 'waiting-%'"
        )
        run.database.add_live_codes(count - live)
        live = count
        run.record(GROWTH.format(count), ours, partial(_pairings, run, ours), _SHOWN)
