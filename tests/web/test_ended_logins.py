"""A login that has ended does nothing more: every act checks it in its own statement, not only when the request begins.

The database knows of the end, the process does not yet: as if the body had trickled in meanwhile, or another server had
ended the login.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from pairing_server.audit.export import Export
from pairing_server.audit.query import Question
from pairing_server.clock import utcnow
from pairing_server.errors import LoginEnded
from pairing_server.request_context import RequestContext, system
from pairing_server.store import logins, users
from pairing_server.store.logins import LOGIN, TOKEN, USER, Revocation
from pairing_server.web.openapi import Operation
from pairing_server.web.routes import ROUTES
from tests.conftest import StartNode
from tests.devices import Account, Site

BODIES = {
    "/api/generate-pair-code": {"desktop_session_id": "desktop-1"},
    "/api/pair-device": {"code": "123456", "mobile_session_id": "mobile-1"},
}
QR = ("post", "/demo/qr", {"code": "123456"})


def requests() -> list[tuple[str, str, dict[str, str] | None]]:
    """Method, path and body of every operation that needs a login."""
    values = {"id": str(uuid4()), "seq": "1", "kind": "login_user", "key": "ada", "login": "login-1"}
    secured = [(r.path, r.operation) for r in ROUTES if r.operation is not None and r.operation.secured]
    return [QR, *((op.method, path.format(**values), body_of(path, op)) for path, op in secured)]


def body_of(path: str, operation: Operation) -> dict[str, str] | None:
    return BODIES.get(path, {} if operation.body else None)


async def end(site: Site, account: Account, kind: str) -> None:
    """In the database alone."""
    claims = await site.node.backend.tokens.verify_access(account.token, utcnow())
    async with site.node.database.transaction() as conn:
        if kind == "disabled":
            await users.set_disabled(conn, users.id_of(account.subject) or uuid4(), utcnow())
        else:
            name = {LOGIN: claims.login_id, TOKEN: claims.token_id, USER: claims.subject}[kind]
            ended = Revocation(kind, "pairing-server", name, utcnow(), claims.expires_at)
            await logins.revoke(conn, ended)


@pytest.fixture
def demo(start_node: StartNode) -> Site:
    return start_node(demo=True)


async def test_every_operation_is_refused_once_the_login_has_ended(demo: Site) -> None:
    site = demo
    for kind in ("disabled", LOGIN, TOKEN, USER):
        account = await site.account(role="admin")
        await end(site, account, kind)
        for method, path, body in requests():
            answer = await site.call(method.upper(), path, body, account.token)
            assert (answer.status, answer.error) == (401, "INVALID_TOKEN"), (path, answer)
        *_, rejected = await site.events("auth.token_rejected")
        reason = "disabled" if kind == "disabled" else "revoked"
        assert (rejected["reason"], rejected["actor"]) == (reason, account.subject)
    assert site.node.services.logins.revocations.read_until is None


@pytest.mark.one_node
async def test_another_login_of_the_user_goes_on(site: Site) -> None:
    account = await site.account()
    issued = site.node.backend.tokens.issue_access(account.subject, utcnow())
    await end(site, account, LOGIN)
    other = Account(account.subject, account.username, issued.token)
    assert (await site.get("/api/pairings", other.token)).status == 200
    assert (await site.get("/api/pairings", account.token)).status == 401


@pytest.mark.one_node
async def test_a_login_that_ends_while_the_body_comes_in_makes_no_code(site: Site) -> None:
    account = await site.account()
    body = b'{"desktop_session_id": "desktop-1"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = (
        "POST /api/generate-pair-code HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {account.token}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    assert await reader.readline() == b"HTTP/1.1 100 (Continue)\r\n"
    await site.node.services.logins.revoke_user(system(utcnow()), account.username)
    writer.write(body)
    await reader.readline()
    assert b" 401 " in await reader.readline()
    writer.close()
    async with site.node.database.transaction() as conn:
        assert await site.node.services.pairings.list_own(system(utcnow())) == []
        assert await logins.of(conn, account.subject, utcnow()) == []


@pytest.mark.one_node
async def test_a_long_export_stops_once_its_reader_may_read_no_more(site: Site) -> None:
    auditor = await site.account(role="auditor")
    claims = await site.node.backend.tokens.verify_access(auditor.token, utcnow())
    context = RequestContext(utcnow(), auditor.subject, claims.login_id, kind="user")
    export = Export(site.node.services.audit.reader, context, Question(), "csv")
    await export.begin()
    chunks = export.chunks()
    assert b"event_id" in await anext(chunks)
    await end(site, auditor, LOGIN)
    with pytest.raises(LoginEnded):
        await anext(chunks)
