"""The page at /docs and the contract that it shows.

How it looks is not tested here: see VERSION.md beside the page.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
import schemathesis
from tornado.web import RequestHandler

from pairing_server.web.authentication import AuthenticatedHandler
from pairing_server.web.page_files import STATIC
from pairing_server.web.routes import ROUTES
from pairing_server.web.routes import contract as contract_of
from tests.devices import Site

DOCS = STATIC / "docs"
OURS = {"index.html", "init.js", "page.css", "VERSION.md"}
TYPES = {".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
IN_THE_CONTRACT = re.compile(r"/api/|/healthz|/readyz|/metrics")
# Any URL with a host, with or without a scheme; our comments have a space after their slashes.
ELSEWHERE = re.compile(r"(?:\b[a-z]+:)?//[\w\[]", re.IGNORECASE)


class Page(HTMLParser):
    """What index.html names, and the scripts that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.attributes: set[str] = set()
        self.inline_script = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        self.attributes.update(name for name, _ in attrs)
        self.urls += [value for name, value in attrs if name in ("src", "href") and value is not None]

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.inline_script += data.strip()

    @property
    def paths(self) -> list[str]:
        """URLs of this server."""
        return [url for url in self.urls if not url.startswith(("data:", "#"))]


@pytest.fixture
def page() -> Page:
    parsed = Page()
    parsed.feed((DOCS / "index.html").read_text("utf-8"))
    return parsed


@pytest.fixture
def contract() -> dict[str, Any]:
    """A copy: the server keeps one document for all who ask."""
    return copy.deepcopy(contract_of("x"))


@pytest.mark.parametrize("name", ["index.html", "init.js", "page.css"])
def test_the_pages_files_name_no_other_origin(name: str) -> None:
    assert not ELSEWHERE.findall((DOCS / name).read_text("utf-8"))


def test_the_viewers_styles_load_nothing() -> None:
    styles = (DOCS / "swagger-ui.css").read_text("utf-8")
    assert "@import" not in styles
    assert {found.strip("\"'") for found in re.findall(r"url\((.{6})", styles)} <= {"data:i", "data:"}


def test_the_viewer_asks_no_validator_and_stores_no_token() -> None:
    options = (DOCS / "init.js").read_text("utf-8")
    for option in ("validatorUrl: null", "persistAuthorization: false", "queryConfigEnabled: false"):
        assert option in options
    assert 'url: "openapi.json"' in options


def test_the_page_has_no_script_of_its_own_inside(page: Page) -> None:
    assert page.inline_script == ""
    assert not [name for name in page.attributes if name.startswith("on")]


def test_the_page_follows_the_systems_colours() -> None:
    assert "prefers-color-scheme: dark" in (DOCS / "page.css").read_text("utf-8")
    assert '"dark-mode"' in (DOCS / "init.js").read_text("utf-8")
    # A viewer of another version may know the class by another name.
    assert "html.dark-mode .swagger-ui" in (DOCS / "swagger-ui.css").read_text("utf-8")


def test_the_viewer_is_the_one_that_version_md_describes() -> None:
    described = (DOCS / "VERSION.md").read_text("utf-8")
    sums = dict(re.findall(r"^\| `(.+?)` \| `([0-9a-f]{64})` \|$", described, re.MULTILINE))
    assert set(sums) == {file.name for file in DOCS.iterdir()} - OURS
    assert sums == {name: hashlib.sha256((DOCS / name).read_bytes()).hexdigest() for name in sums}
    version = re.search(r"`swagger-ui-dist` ([0-9.]+[0-9])", described)
    assert version is not None
    assert version[1] in (DOCS / "swagger-ui-bundle.js").read_text("utf-8")


async def test_the_page_runs_scripts_of_this_server_only(site: Site) -> None:
    answer = await site.get("/docs")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.body == (DOCS / "index.html").read_bytes()
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'"} <= set(policy)


async def test_all_that_the_page_names_is_served_with_its_type(site: Site, page: Page) -> None:
    assert {"docs/swagger-ui-bundle.js", "docs/init.js", "openapi.json"} <= set(page.paths)
    for path in page.paths:
        answer = await site.get(f"/{path}")
        assert answer.status == 200, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        ending = path[path.rindex(".") :]
        assert answer.headers["Content-Type"].split(";")[0] == TYPES[ending], path


async def test_the_contract_served_is_the_one_described(site: Site) -> None:
    answer = await site.get("/openapi.json")
    assert answer.status == 200
    assert answer.body == contract_of(answer.body["info"]["version"])


def test_the_contract_is_valid_openapi(contract: dict[str, Any]) -> None:
    assert contract["openapi"].startswith("3.0.")
    assert contract["info"]["version"] == "x"
    # The official JSON Schema of OpenAPI 3.0; raises with the place.
    schemathesis.openapi.from_dict(contract).validate()


def _values(node: Any, key: str) -> Iterator[Any]:
    """All values of a key, at any depth."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and key in node:
        yield node[key]
    for child in children:
        yield from _values(child, key)


def test_all_references_of_the_contract_lead_somewhere(contract: dict[str, Any]) -> None:
    schemas = contract["components"]["schemas"]
    references = set(_values(contract, "$ref"))
    assert references
    assert references <= {f"#/components/schemas/{name}" for name in schemas}


def test_all_variables_of_a_path_are_parameters(contract: dict[str, Any]) -> None:
    with_variables = {path: operations for path, operations in contract["paths"].items() if "{" in path}
    assert with_variables
    for path, operations in with_variables.items():
        for operation in operations.values():
            declared = [given for given in operation["parameters"] if given["in"] == "path"]
            assert [given["name"] for given in declared] == re.findall(r"{(\w+)}", path)
            assert all(given["required"] for given in declared)


def _routed() -> dict[tuple[str, str], type[RequestHandler]]:
    """(method, path with {} for each variable) → handler, of every route that the contract is about."""
    found = {}
    for route in ROUTES:
        handler = route.handler
        if not IN_THE_CONTRACT.match(route.path):
            continue
        # OPTIONS is the browser's question and HEAD is GET's shadow: neither is in the contract.
        for method in set(RequestHandler.SUPPORTED_METHODS) - {"OPTIONS", "HEAD"}:
            if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower()):
                found[method, route.form] = handler
    return found


def _described(contract: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), re.sub(r"{\w+}", "{}", path)): operation
        for path, operations in contract["paths"].items()
        for method, operation in operations.items()
    }


def test_the_contract_has_every_route_and_no_other(contract: dict[str, Any]) -> None:
    assert set(_described(contract)) == set(_routed())


def test_the_contract_says_which_routes_take_a_token(contract: dict[str, Any]) -> None:
    described = {key for key, operation in _described(contract).items() if operation["security"]}
    assert described == {
        key for key, handler in _routed().items() if issubclass(handler, AuthenticatedHandler)
    }
    assert contract["components"]["securitySchemes"]["access_token"]["scheme"] == "bearer"
