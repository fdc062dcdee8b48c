"""The page at /audit and its files, without a browser. In one: tests/browser/test_audit_page.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pairing_server.web.audit.page import AUDIT
from pairing_server.web.page_files import SHARED
from tests.devices import Site

# Any URL with a host; our comments have a space after their slashes. The name of a namespace is never asked for.
ELSEWHERE = re.compile(r"(?:\b[a-z]+:)?//[\w\[]", re.IGNORECASE)
NAMESPACE = "http://www.w3.org/2000/svg"
FILES = sorted(path for folder in (AUDIT, SHARED) for path in folder.iterdir())


async def test_the_page_loads_this_servers_files_only_and_refuses_frames(site: Site) -> None:
    answer = await site.get("/audit")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[part] for part in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", [path.name for path in FILES])
async def test_each_file_is_served_as_what_it_is(site: Site, name: str) -> None:
    if name == "index.html":
        assert (await site.get(f"/audit/{name}")).status == 404, "the page needs its headers"
        return
    answer = await site.get(f"/audit/{name}")
    kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, kind)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_pages_files_name_no_other_origin(path: Path) -> None:
    assert not ELSEWHERE.findall(path.read_text("utf-8").replace(NAMESPACE, ""))


async def test_whoever_leaves_the_folder_gets_nothing(site: Site) -> None:
    for path in ("../demo/page.css", "..%2fdemo%2fpage.css", "page.css%00.js", "none.js", "login.js.map"):
        assert (await site.get(f"/audit/{path}")).status == 404, path
