"""Which pages may use the HTTP API. How origins are compared: tests/security/test_origins.py."""

from __future__ import annotations

import pytest

from pairing_server.security.origins import Origins
from tests.conftest import StartNode
from tests.devices import Answer, Site
from tests.web.test_http_edges import ENDPOINTS, allowed

pytestmark = pytest.mark.one_node

APP = "https://app.example.com"
LISTED = [APP, "http://localhost:5173", "https://*.example.org"]


@pytest.fixture
def listed(start_node: StartNode) -> Site:
    return start_node(allowed_origins=Origins.parse(LISTED))


def may_read(answer: Answer, origin: str) -> bool:
    """Whether a browser hands this answer to a page of that origin, and keeps it from others."""
    same = answer.headers.get("Access-Control-Allow-Origin") == origin
    return same and "Origin" in answer.headers.get("Vary", "")


def is_closed(answer: Answer) -> bool:
    """Whether a browser hands this answer to no page."""
    return not any(name.lower().startswith("access-control-") for name in answer.headers)


async def test_a_preflight_is_answered_on_every_endpoint(listed: Site) -> None:
    for path, methods in ENDPOINTS.items():
        asked = {
            "Origin": APP,
            "Access-Control-Request-Method": methods[0],
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        answer = await listed.call("OPTIONS", path, headers=asked)
        assert answer.status == 204, path
        assert may_read(answer, APP), path
        assert answer.headers["Access-Control-Allow-Methods"] == allowed(methods)
        assert answer.headers["Access-Control-Allow-Headers"].lower() == "authorization, content-type"
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
        assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_preflight_from_another_page_is_refused_on_every_endpoint(listed: Site) -> None:
    for path, methods in ENDPOINTS.items():
        asked = {"Origin": "https://evil.io", "Access-Control-Request-Method": methods[0]}
        answer = await listed.call("OPTIONS", path, headers=asked)
        assert (answer.status, answer.error) == (403, "ORIGIN_NOT_ALLOWED"), path
        assert is_closed(answer), path


async def test_a_listed_page_reads_successes_and_what_it_may_wait_for(listed: Site) -> None:
    account = await listed.account()
    for origin in (APP, "http://localhost:5173", "https://any.example.org"):
        answer = await listed.get("/api/pairings", account.token, Origin=origin)
        assert answer.status == 200
        assert may_read(answer, origin)
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


async def test_a_listed_page_reads_failures_too(listed: Site) -> None:
    token = (await listed.account()).token
    wrong_code = {"code": "000000", "mobile_session_id": "mobile-session"}
    answers = [
        (400, await listed.post("/api/auth/login", b"{", Origin=APP)),
        (401, await listed.get("/api/pairings", Origin=APP)),
        (401, await listed.get("/api/pairings", "nonsense", Origin=APP)),
        (403, await listed.get("/api/audit", token, Origin=APP)),
        (404, await listed.post("/api/pair-device", wrong_code, token, Origin=APP)),
        (404, await listed.get("/nothing/here", Origin=APP)),
        (405, await listed.call("DELETE", "/api/pairings", None, token, {"Origin": APP})),
        (413, await listed.post("/api/auth/login", b"x" * 20_000, Origin=APP)),
        (422, await listed.post("/api/auth/login", {}, Origin=APP)),
    ]
    listed.node.app.draining = True
    answers.append((503, await listed.post("/api/auth/login", {}, Origin=APP)))
    for status, answer in answers:
        assert answer.status == status
        assert may_read(answer, APP), status


async def test_other_pages_get_nothing_and_do_nothing(listed: Site) -> None:
    account = await listed.account()
    for origin in (
        "https://app.example.com.evil.io",
        "https://app.example.com:8443",
        "http://app.example.com",
        "https://evil-app.example.com",
        "https://app.example.com/",
        "https://app.example.com@evil.io",
        "https://app.example.co",
        "https://a.b.example.org",
        "https://example.org",
        "https://example.org.evil.io",
        "http://localhost",
        "http://localhost:5174",
        "null",
        "file://",
        "*",
    ):
        body = {"desktop_session_id": "desktop-session"}
        answer = await listed.post("/api/generate-pair-code", body, account.token, Origin=origin)
        assert (answer.status, answer.error) == (403, "ORIGIN_NOT_ALLOWED"), origin
        assert is_closed(answer), origin
        assert "Origin" in answer.headers["Vary"]
    assert (await listed.get("/api/pairings", account.token)).body["pairings"] == []


async def test_without_an_origin_nothing_is_said_about_origins(listed: Site) -> None:
    answer = await listed.get("/api/pairings", (await listed.account()).token)
    assert answer.status == 200
    assert is_closed(answer)


async def test_the_servers_own_pages_are_allowed_by_address_and_by_public_url(site: Site) -> None:
    for origin in (site.url, "http://pairing.test"):
        answer = await site.get("/healthz", Origin=origin)
        assert answer.status == 200, origin
        assert may_read(answer, origin)
    for origin in (f"https://127.0.0.1:{site.port}", "http://127.0.0.1:1", "http://pairing.test.evil.io"):
        assert (await site.get("/healthz", Origin=origin)).status == 403, origin


async def test_a_foreign_name_that_points_here_is_no_own_origin(site: Site) -> None:
    rebound = {"Host": "evil.io", "Origin": "http://evil.io"}
    answer = await site.call("GET", "/healthz", headers=rebound)
    assert (answer.status, answer.error) == (403, "ORIGIN_NOT_ALLOWED")
