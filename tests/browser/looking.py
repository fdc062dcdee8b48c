"""Looking at a page in light and dark, small and large: barriers, as far as axe-core finds them, and a picture of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import Page

from tests.browser.pages import DESKTOP_SIZE, PHONE_SIZE

SIZES = {"large": DESKTOP_SIZE, "small": PHONE_SIZE}
AXE = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => [id, help, ...nodes.map(({ html }) => html.slice(0, 150))]);
}"""
# Until the page has been laid out anew, whatever observes its size has drawn, and what moves for a moment has arrived.
STILL = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  await frame();
  await frame();
  const passing = document.getAnimations().filter((each) => Number.isFinite(each.effect.getComputedTiming().endTime));
  for (const each of passing) each.finish();
  await frame();
}"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


async def look(
    page: Page,
    axe: str,
    name: str,
    folder: Path | None,
    *,
    nothing_of: Sequence[str] = (OVERFLOW,),
    whole: bool = False,
) -> None:
    """Fails for a barrier, and for what is not 0 of `nothing_of`. The pictures go into the folder, if there is one;
    of a small page `whole` shows what is below its end, too."""
    await page.evaluate(axe)
    for size, scheme in itertools.product(SIZES, ("light", "dark")):
        await page.set_viewport_size(SIZES[size])
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.evaluate(STILL)
        assert await page.evaluate(AXE) == [], (size, scheme)
        for what in nothing_of:
            assert await page.evaluate(what) == 0, (what, size, scheme)
        if folder:
            path = folder / f"{name}-{size}-{scheme}.png"
            await page.screenshot(path=path, full_page=whole and size == "small")
