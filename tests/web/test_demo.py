"""The demonstration over HTTP: where it is, what its pages may do, and the QR code. How it works: tests/browser."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
import segno

from pairing_server.web.demo import DEMO, policy
from pairing_server.web.page_files import SHARED
from tests.conftest import StartNode
from tests.devices import Site

pytestmark = pytest.mark.one_node

# Any URL with a host.
ELSEWHERE = re.compile(r"(?:\b[a-z]+:)?//[\w\[]", re.IGNORECASE)
# Names that are no requests.
NAMESPACES = ("http://www.w3.org/2000/svg",)
PAGES = ["/", "/phone"]
LOGIN = "demo-0123456789:abcdefghijklmnopqrstuvwx"


@pytest.fixture
def demo(start_node: StartNode) -> Site:
    return start_node(demo=True, public_url="https://pair.example.com")


@pytest.mark.parametrize("path", [*PAGES, "/demo/home.js", "/demo/site.json", "/demo/qr"])
async def test_without_the_demonstration_its_urls_are_as_unknown_as_any(site: Site, path: str) -> None:
    answer, unknown = await site.get(path), await site.get("/nothing")
    assert (answer.status, answer.body) == (404, unknown.body)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_may_do_next_to_nothing(demo: Site, path: str) -> None:
    answer = await demo.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    host = f"127.0.0.1:{demo.port}"
    assert answer.headers["Content-Security-Policy"].split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src blob:",
        f"connect-src 'self' ws://{host} wss://{host}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "microphone=(self)" in answer.headers["Permissions-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("host", ["", "evil.example; script-src *", "a b", "a,b", "'unsafe-inline'"])
def test_no_host_header_gets_anything_into_the_policy(host: str) -> None:
    assert "connect-src 'self';" in policy(host)


@pytest.mark.parametrize("path", PAGES)
async def test_all_that_a_page_names_is_served(demo: Site, path: str) -> None:
    text = (await demo.get(path)).body.decode()
    named = set(re.findall(r'(?:src|href)="(demo/[^"]+)"', text))
    assert len(named) == 4
    for name in sorted(
        named | {f"demo/{file.name}" for folder in (DEMO, SHARED) for file in folder.glob("*.js")}
    ):
        answer = await demo.get(f"/{name}")
        assert answer.status == 200, name
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/demo/index.html", "/demo/../docs/index.html", "/demo/%2e%2e/page.css"])
async def test_nothing_else_is_a_file_of_the_demonstration(demo: Site, path: str) -> None:
    assert (await demo.get(path)).status == 404


@pytest.mark.parametrize("path", sorted([*DEMO.iterdir(), *SHARED.iterdir()]), ids=lambda p: p.name)
def test_nothing_is_loaded_from_elsewhere_or_stands_inline(path: Any) -> None:
    text = path.read_text("utf-8")
    for name in NAMESPACES:
        text = text.replace(name, "")
    # What a person is told to type into a terminal is no request.
    assert not ELSEWHERE.findall(text.replace("http://<this machine>", ""))
    if path.suffix == ".html":
        assert not re.search(r"<style|\bstyle=|\bon[a-z]+=|<script(?![^>]*\bsrc=)", text)


async def test_the_pages_are_told_what_this_server_is(demo: Site) -> None:
    assert (await demo.get("/demo/site.json")).body == {
        "registration": "open",
        "redeem_policy": "same_user",
        "public_url": "https://pair.example.com",
    }


def modules(svg: bytes) -> str:
    """What an SVG of a QR code draws."""
    found = re.search(rb'class="qrline"[^>]* d="([^"]+)"|d="([^"]+)" class="qrline"', svg)
    assert found is not None, svg
    return (found[1] or found[2]).decode()


def drawn(text: str) -> str:
    """The same of that text."""
    svg = io.BytesIO()
    segno.make_qr(text, error="m").save(svg, kind="svg", border=4)
    return modules(svg.getvalue())


async def test_a_qr_code_is_drawn_for_whoever_is_logged_in(demo: Site) -> None:
    account = await demo.account()
    answer = await demo.post("/demo/qr", {"code": "123456", "login": LOGIN}, account.token)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/svg+xml")
    assert modules(answer.body) == drawn(f"https://pair.example.com/phone#code=123456&login={LOGIN}")
    plain = await demo.post("/demo/qr", {"code": "123456"}, account.token)
    assert modules(plain.body) == drawn("https://pair.example.com/phone#code=123456")
    assert (await demo.post("/demo/qr", {"code": "123456"})).status == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": "12345"},
        {"code": "１２３４５６"},
        {"code": "123456\n"},
        {"code": "123456", "login": "demo:x&y=z"},
        {"code": "123456", "login": "demo"},
    ],
)
async def test_nothing_else_is_put_into_a_qr_code(demo: Site, body: dict[str, str]) -> None:
    account = await demo.account()
    assert (await demo.post("/demo/qr", body, account.token)).error == "VALIDATION_ERROR"
