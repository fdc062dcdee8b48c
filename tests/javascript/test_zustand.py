"""pairSync with the real Zustand under Node.js, each story with an account of its own."""

from __future__ import annotations

import pytest

from tests.browser.packages import installed
from tests.devices import Site
from tests.javascript.conftest import Tell, stories

pytestmark = pytest.mark.one_node


@pytest.mark.parametrize("story", stories("zustand.mjs"))
async def test_the_store(site: Site, tell: Tell, story: str) -> None:
    await tell(site, "zustand.mjs", story, zustand=str(installed() / "zustand" / "esm" / "vanilla.mjs"))
