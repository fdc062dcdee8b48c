"""The JavaScript client as it is served. What it does: tests/javascript and tests/browser."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from pairing_server.security.origins import Origins
from pairing_server.web.client_files import CLIENT
from tests.conftest import StartNode
from tests.devices import Site

pytestmark = pytest.mark.one_node

MODULES = sorted(path.name for path in CLIENT.glob("*.js"))
APP = "https://app.example.com"


@pytest.fixture
def listed(start_node: StartNode) -> Site:
    return start_node(allowed_origins=Origins.parse([APP]))


@pytest.mark.parametrize("name", MODULES)
async def test_a_module_is_served_as_one_and_asked_for_again_each_time(site: Site, name: str) -> None:
    answer = await site.get(f"/client/{name}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.body == (CLIENT / name).read_bytes()
    unchanged = await site.get(f"/client/{name}", **{"If-None-Match": answer.headers["Etag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("pairing.d.ts", "text/plain; charset=utf-8"),
        ("package.json", "application/json"),
        ("README.md", "text/"),
    ],
)
async def test_what_stands_beside_the_modules_is_served_too(site: Site, name: str, type_: str) -> None:
    answer = await site.get(f"/client/{name}")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(type_)


@pytest.mark.parametrize(
    "path", ["/client/", "/client/../demo/home.js", "/client/%2e%2e/docs/init.js", "/client/no.js"]
)
async def test_nothing_else_is(site: Site, path: str) -> None:
    assert (await site.get(path)).status == 404


async def test_an_allowed_page_may_import_it_and_another_may_not(listed: Site) -> None:
    allowed = await listed.get("/client/pairing.js", Origin=APP)
    assert allowed.headers["Access-Control-Allow-Origin"] == APP
    other = await listed.get("/client/pairing.js", Origin="https://elsewhere.example")
    assert "Access-Control-Allow-Origin" not in other.headers
    assert all("Origin" in answer.headers["Vary"] for answer in (allowed, other))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_its_neighbours_and_what_belongs_to_the_caller(name: str) -> None:
    text = (CLIENT / name).read_text("utf-8")
    imported = set(re.findall(r'(?:from |import\()"([^"]+)"', text))
    assert all((CLIENT / one).is_file() for one in imported - {"react"})
    assert text.count("import(") == text.count('import("')


def test_the_package_has_the_version_of_the_server_and_all_it_exports() -> None:
    package = json.loads((CLIENT / "package.json").read_text("utf-8"))
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    assert (package["version"], package["license"]) == (project["version"], project["license"])
    assert "dependencies" not in package
    for entry in package["exports"].values():
        for file in entry.values() if isinstance(entry, dict) else [entry]:
            assert (CLIENT / file).is_file()
    public = {Path(entry["default"]).name for entry in package["exports"].values() if isinstance(entry, dict)}
    assert {name.removesuffix(".d.ts") for name in (p.name for p in CLIENT.glob("*.d.ts"))} == {
        name.removesuffix(".js") for name in public
    }
