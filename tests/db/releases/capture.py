"""Writes down every statement that this release sends, for the test that later schemas go on with them.

python -m tests.db.releases.capture > tests/store/releases/REVISION.sql, when a release is made. Everything a server
does is done once, on a database that logs. Ids and names in the text begin with a1a1a1a1, so that the same can be done
again as somebody else's; what stands for a password, a token or a code is nobody's.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from pairing_server.db import migrations
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.request_context import system
from pairing_server.server.scheduler import Scheduler
from pairing_server.server.server import Node
from pairing_server.store import users
from tests.conftest import CONFIGURATION, execute_within
from tests.devices import Account, Site

MARK = "a1a1a1a1"
_BEGINNING = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ UTC \[\d+\] "
_ENTRY = re.compile(_BEGINNING + r"(?P<kind>[A-Z]+):  (?P<text>.*)$", re.DOTALL)
_EXECUTED = re.compile(r"duration: [0-9.]+ ms  execute [^:]+: (?P<statement>.*)$", re.DOTALL)
# What the driver and SQLAlchemy ask for themselves, and the look at the schema.
_DRIVERS = re.compile(
    r"pg_catalog|pg_type|alembic|current_schema\(\)|set_config|^(?i:begin|commit|rollback|show|set )"
)
_BINARY = re.compile(r"'\\x[0-9a-f]{8}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")


async def walk(site: Site) -> None:
    """Everything a server does, once."""
    name, password = f"{MARK}-alice", "correct horse battery"
    credentials = {"username": name, "password": password}
    registered = await site.post("/api/auth/register", credentials)
    await site.post("/api/auth/register", credentials)
    await site.post("/api/auth/login", {**credentials, "password": "a wrong long password"})
    login = await site.post("/api/auth/login", credentials)
    account = Account(registered.body["user_id"], name, login.body["token"])
    await site.code(account, f"{MARK}-desktop")
    code = await site.code(account, f"{MARK}-desktop")
    await site.redeem(account, f"{(int(code) + 1) % 10**6:06d}", f"{MARK}-mobile")
    await site.redeem(account, code, f"{MARK}-mobile")
    await site.redeem(account, code, f"{MARK}-mobile")
    channel = f"pair-{code}"
    desktop = await site.join(account, "desktop", channel, f"{MARK}-desktop")
    mobile = await site.join(account, "mobile", channel, f"{MARK}-mobile")
    desktop.socket.send({"type": "settings_sync", "settings": {"gain": 1}})
    await mobile.socket.expect("settings_sync")
    stranger = await site.account(f"{MARK}-bob")
    other = await site.connect(stranger, "mobile")
    other.send(
        {"type": "join_channel", "channel": channel, "device_type": "mobile", "session_id": f"{MARK}-other"}
    )
    await other.error()
    listed = (await site.get("/api/pairings", account.token)).body["pairings"]
    caller, node, now = system(datetime.now(UTC)), site.node, datetime.now(UTC)
    await node.services.accounts.set_role(caller.at(now), name, "auditor")
    await site.get("/api/audit?limit=5&event=auth.login", account.token)
    for later in (0, 301, 3600):
        await jobs(site, timedelta(seconds=later))
    await site.call("DELETE", f"/api/pairings/{listed[0]['id']}", token=account.token)
    await node.services.accounts.set_password(caller.at(now), name, "another long password")
    await node.services.accounts.list_users()
    await node.services.accounts.set_disabled(caller.at(now), f"{MARK}-bob", True)
    await jobs(site, timedelta(seconds=1))
    await node.services.accounts.set_disabled(caller.at(now), f"{MARK}-bob", False)
    async with site.node.database.transaction() as conn:
        await users.by_id(conn, UUID(account.subject))


async def jobs(site: Site, later: timedelta) -> None:
    """What the timer does, that much later."""
    loop = asyncio.get_running_loop()
    timer = Scheduler(
        site.node.backend, lambda: datetime.now(UTC) + later, lambda: loop.time() + later.total_seconds()
    )
    for job in timer.jobs:
        await timer.run(job)


def statements(log: str) -> list[tuple[str, list[str]]]:
    """What the server has sent, with the values as literals."""
    found: list[tuple[str, list[str]]] = []
    values_wanted = False
    for entry in re.split(rf"(?m)^(?={_BEGINNING})", log):
        match = _ENTRY.match(entry.rstrip("\n"))
        if match is None:
            continue
        text = match["text"].replace("\n\t", "\n")
        if match["kind"] == "DETAIL" and values_wanted and text.lower().startswith("parameters: "):
            found[-1][1].extend(re.findall(r"\$\d+ = ('(?:[^']|'')*'|NULL)", text))
        elif match["kind"] == "LOG":
            # What is parsed or bound has values as well, and comes right before.
            sent = _EXECUTED.match(text)
            values_wanted = sent is not None
            if sent is not None:
                found.append((sent["statement"].strip().rstrip(";"), []))
    return found


def marked(literal: str) -> str:
    literal = re.sub(r"\$argon2id\$[^']*", "$argon2id$none", literal)
    return _BINARY.sub(rf"'\\x{MARK}", _UUID.sub(rf"{MARK}\1", literal))


def script(sent: list[tuple[str, list[str]]]) -> str:
    """Each statement with values that it was sent with once; the same statement with others comes again."""
    lines: list[str] = []
    for statement, values in sent:
        if _DRIVERS.search(statement):
            continue
        lines.append(statement + (f"\n-- with {', '.join(map(marked, values))}" if values else ""))
    return "\n;;\n".join(lines) + "\n"


async def run(url: str) -> None:
    node = Node(replace(CONFIGURATION, guest_pairing=False), url)
    [(_, port), *_] = await node.start(timers=False)
    site = Site(node, port)
    await walk(site)
    await site.close()
    await node.stop()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="capture-", dir="/tmp") as name:
        folder = Path(name) / "data"
        with EmbeddedPostgres(folder) as server:
            url = server.url
            migrations.migrate(url)
            asyncio.run(
                execute_within(
                    url,
                    "ALTER SYSTEM SET log_min_duration_statement = 0",
                    "SELECT pg_reload_conf()",
                )
            )
            asyncio.run(run(url))
        log = (folder / "postgres.log").read_text(errors="replace")
        sys.stdout.write(script(statements(log)))


if __name__ == "__main__":
    main()
