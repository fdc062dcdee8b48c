"""The search of tests/leaks.py finds a secret that was written, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.security.keys import generate_key
from pairing_server.security.tokens import Tokens
from tests.devices import Site
from tests.leaks import RUN, Secrets, audit_rows

ROOT = Path(__file__).parents[2]
KEY = generate_key()
TOKEN = Tokens([KEY]).issue_access("alice", utcnow()).token
OTHER = Tokens([KEY]).issue_access("bob", utcnow()).token
PASSWORD = "correct horse battery"


def secrets() -> Secrets:
    found = Secrets()
    found.sent({"username": "ada", "password": PASSWORD})
    found.received({"token": TOKEN, "token_type": "Bearer"})
    found.received({"code": "483920", "channel_id": "pair-483920"})
    found.add("signing key", KEY.secret.decode())
    return found


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        # An id that has a token in it would be another in each worker of pytest-xdist.
        pytest.param("token", f"GET /ws?token={TOKEN} 101", id="in a query"),
        pytest.param("token", f"Sec-WebSocket-Protocol: pairing.v1, Bearer.{TOKEN}", id="in a header"),
        pytest.param("token", f"HTTPServerRequest(uri='/ws?token={TOKEN}&x=1')", id="in a request"),
        pytest.param("token", f"cut short: {TOKEN[:-20]}", id="cut short"),
        ("password", f'body: {{"username": "ada", "password": "{PASSWORD}"}}'),
        pytest.param("signing key", f"keys: {KEY.kid}:{KEY.secret.decode()}", id="a key"),
        ("code", "joined pair-483920"),
        ("code", "[parameters: ('pair-483920',)]"),
        ("code", "redeemed 483920"),
        ("code", "redeemed 483920."),
        ("code", '{"code":"483920"}'),
        ("code", "code=483920, next"),
        ("code", "http://127.0.0.1:8089/phone#code=483920"),
        ("code", "POST /api/codes/483920 200"),
    ],
)
def test_a_written_secret_is_found_and_not_repeated(kind: str, text: str) -> None:
    [find] = secrets().found_in(f"before\n{text}\nafter")
    assert find.kind == kind
    assert find.line not in text
    assert secrets().found_in(find.line) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"somebody else's {OTHER}", id="a token of somebody else"),
        "at 22:41:10.483920",
        "took 1483920 ns, 48392 ms, 483920.25 us",
        "datetime.datetime(2025, 9, 14, 22, 41, 10, 483920, tzinfo=datetime.timezone.utc)",
        "2f0a9f8c-52a4-4f0e-9c55-483920483920",
        "job-483920 and run_483920",
        "483920f0",
        "pair-[hidden]",
    ],
)
def test_what_only_looks_like_a_secret_is_no_find(text: str) -> None:
    assert secrets().found_in(text) == []


PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "xdist")
PLANTED = """
    import logging, sys
    import pytest
    from tests.leaks import RUN

    SECRET = "a password that is used"

    @pytest.fixture(autouse=True)
    def used():
        RUN.secrets.add("password", SECRET)

    def test_logged(): logging.getLogger("deep.down").debug("with %s", SECRET)
    def test_a_field(): logging.getLogger("deep.down").debug("event", extra={"reason": f"with {SECRET}"})
    def test_printed(): print("with", SECRET)
    def test_printed_as_an_error(): print("with", SECRET, file=sys.stderr)
    def test_nothing(): logging.getLogger("deep.down").error("without")
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_fails_if_a_test_of_it_writes_a_secret(tmp_path: Path, workers: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text("from tests.leaks import watch as pytest_configure\n")
    (tmp_path / "test_planted.py").write_text(dedent(PLANTED))
    run = subprocess.run(
        [*PYTEST, "-n", workers, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, "5 passed" in run.stdout) == (1, True), run.stdout + run.stderr
    told = re.findall(r"::(\w+): a password in: (.*)", run.stdout)
    assert sorted(test for test, _ in told) == [
        "test_a_field",
        "test_logged",
        "test_printed",
        "test_printed_as_an_error",
    ]
    assert all(line.endswith("with •••") for _, line in told)
    assert "a password that is used" not in run.stdout + run.stderr


async def test_a_secret_in_the_audit_log_is_found(site: Site, database_url: str) -> None:
    planted = site.node.audit.event("auth.login", "success", system(utcnow()), target=TOKEN)
    async with site.node.database.transaction() as conn:
        await site.node.audit.record(conn, planted)
    rows = await audit_rows(database_url)
    assert [find.kind for find in secrets().found_in("\n".join(rows))] == ["token"]


async def test_the_number_of_a_transaction_is_taken_for_no_code(site: Site, database_url: str) -> None:
    """In a long run it has six digits, as a code has, and stands in each row."""
    async with site.node.database.transaction() as conn:
        await site.node.audit.record(conn, site.node.audit.event("auth.login", "success", system(utcnow())))
        number = (await conn.exec_driver_sql("SELECT pg_current_xact_id()::text")).scalar_one()
    [row] = [row for row in await audit_rows(database_url) if "auth.login" in row]
    assert f'"{number}"' not in row


async def test_what_devices_use_is_searched_for(site: Site) -> None:
    account = await site.account()
    await site.post("/api/auth/register", {"username": "ada", "password": PASSWORD})
    login = await site.post("/api/auth/login", {"username": "ada", "password": PASSWORD})
    desktop, _ = await site.pair(account)
    ws_token = await site.ws_token(account, "mobile")
    used = (account.token, login.body["token"], ws_token, PASSWORD, desktop.channel)
    assert all(RUN.secrets.found_in(f"<{secret}>") for secret in used)
    assert RUN.secrets.found_in(site.node.config.jwt_keys[0].secret.decode())
    # What the server has logged by now, at DEBUG, is being searched.
    assert any("route=/api/pair-device" in line for line in RUN.written)


async def test_no_secret_is_in_metrics_nor_in_what_is_answered_to_a_wrong_request(site: Site) -> None:
    account, admin = await site.account(), await site.account(role="admin")
    desktop, _ = await site.pair(account)
    code = desktop.channel.removeprefix("pair-")
    ws_token = await site.ws_token(account, "desktop")
    said = [
        await site.get("/metrics"),
        await site.get("/openapi.json"),
        await site.get(f"/nothing?token={ws_token}&code={code}", account.token),
        await site.get("/ws?token=" + ws_token),
        await site.get("/api/pairings", account.token[:-4] + "AAAA"),
        await site.get("/api/pairings", ws_token),
        await site.post(
            "/api/pair-device", {"code": code, "mobile_session_id": "another-mobile"}, account.token
        ),
        await site.post("/api/pair-device", {"code": [code], "mobile_session_id": code}, account.token),
        await site.post("/api/auth/login", {"username": ws_token, "password": PASSWORD}),
        await site.post("/api/auth/login", b'{"password": "' + PASSWORD.encode()),
        await site.get("/api/audit?limit=500", admin.token),
        await site.get("/api/logins", account.token),
    ]
    assert RUN.secrets.found_in(f"token {ws_token}") and RUN.secrets.found_in(f"code {code}")
    for answer in said:
        text = str(answer.body) + str(dict(answer.headers))
        assert RUN.secrets.found_in(text) == [], answer
