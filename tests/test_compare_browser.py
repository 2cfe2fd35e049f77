"""The comparison page in headless Chromium: it loads, sorts, hovers and selects, and asks nothing of any network."""

import shutil

import pytest

from delete_jax.reports.compare_page import write_comparison
from tests.test_compare import sample_comparison

api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install 'delete_jax[browser]'"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"there is no Chromium (none of {', '.join(BROWSERS)})"),
]
ORIGINAL, RETRAINED, DELETE, ASCENT = range(4)


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, tmp_path):
    """The opened page. Afterwards: no message on the console, no error, no request but for the file itself."""
    path = tmp_path / "comparison.html"
    write_comparison(sample_comparison(), path)
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert said == []
    assert asked == [path.as_uri()]


def rows(page) -> list[str]:
    return [row.get_attribute("data-title") for row in page.locator("#measures tbody tr").all()]


def chosen(page, selector: str) -> list[str]:
    """The networks whose parts of a view are marked."""
    return [part.get_attribute("data-network") for part in page.locator(f"{selector}.chosen").all()]


def heading(page, text: str):
    return page.locator("#measures thead th", has_text=text)


def figures(page, kind: str) -> list[str]:
    """The networks whose matrix or map is visible."""
    found = page.locator(f".networks figure{kind}").all()
    return [figure.get_attribute("data-network") for figure in found if figure.is_visible()]


def marked(page, network: int) -> list[tuple[str, str]]:
    """The true and the predicted class of the points that are marked on a network's map."""
    points = page.locator(f'.map[data-network="{network}"] path.chosen').all()
    return [(point.get_attribute("data-true"), point.get_attribute("data-pred")) for point in points]


def cells(page, network: int) -> list[tuple[str, str]]:
    """The marked cells of a network's matrix."""
    script = "cells => cells.map(cell => [cell.parentElement.dataset.true, cell.dataset.pred])"
    selector = f'figure:not(.map)[data-network="{network}"] td.chosen'
    return [tuple(pair) for pair in page.locator(selector).evaluate_all(script)]


def test_sorting(page):
    assert rows(page) == ["original", "retrained", "delete", "ascent"]
    column = heading(page, "remaining, test")
    column.locator("button").click()
    assert column.get_attribute("aria-sort") == "ascending"
    assert rows(page) == ["ascent", "original", "delete", "retrained"]
    column.locator("button").press("Enter")
    assert column.get_attribute("aria-sort") == "descending"
    assert rows(page)[0] == "retrained"
    gap = heading(page, "AUC")  # the retrained network has none: it is last, either way
    for order in (["delete", "ascent", "original", "retrained"], ["original", "ascent", "delete", "retrained"]):
        gap.locator("button").click()
        assert rows(page) == order
    assert column.get_attribute("aria-sort") == "none"
    heading(page, "network").locator("button").click()
    assert rows(page) == sorted(rows(page))


def test_hovering(page):
    tip = page.locator("#tip")
    assert tip.is_hidden()
    point = page.locator(f'.chart g[data-network="{ASCENT}"]').first
    point.locator(".spot").hover()
    assert tip.inner_text() == "ascent. forgotten, test 25.0\u00a0%; remaining, test 70.0\u00a0%"
    assert "hover" in page.locator(f'#measures tr[data-network="{ASCENT}"]').get_attribute("class")
    page.locator("h1").hover()
    assert tip.is_hidden()
    point.focus()
    assert tip.inner_text().startswith("ascent. ")
    page.locator('.matrix >> nth=0 >> tr[data-true="2"] td[data-pred="2"]').hover()
    assert tip.inner_text() == "cat predicted as cat: 100 %"
    page.locator(f'figure:not(.map)[data-network="{DELETE}"] tr[data-true="1"] td.same').hover()
    assert tip.inner_text() == "✕ bee: 0 % predicted as by the retrained network"
    page.locator(f'.map[data-network="{DELETE}"] path[data-true="1"]').first.hover(force=True)
    assert "bee" in tip.inner_text()


def test_a_method_is_marked_everywhere(page):
    assert figures(page, ":not(.map)") == figures(page, ".map") == [str(n) for n in (ORIGINAL, DELETE, RETRAINED)]
    for select in (
        lambda: page.locator(f'#measures tr[data-network="{ASCENT}"] th button').click(),
        lambda: page.locator(f'.chart g[data-network="{ASCENT}"]').first.press("Enter"),
        lambda: page.locator(f'.chart g[data-network="{ASCENT}"] .spot').last.click(),
    ):
        page.locator(f'#measures tr[data-network="{DELETE}"] th button').press("Enter")
        assert chosen(page, "#measures tr") == [str(DELETE)]
        select()
        assert chosen(page, "#measures tr") == [str(ASCENT)]
        assert chosen(page, ".chart g") == [str(ASCENT)] * 2
        assert figures(page, ":not(.map)") == figures(page, ".map") == [str(n) for n in (ORIGINAL, ASCENT, RETRAINED)]
        pressed = page.locator("[data-choose][aria-pressed=true], [data-choose] > [aria-pressed=true]")
        assert pressed.count() == 3
        assert page.locator("#status").inner_text() == "Selected: ascent."


def test_a_class_is_marked_everywhere(page):
    button = page.locator('#classes li[data-class="1"] button')
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert marked(page, ORIGINAL) == [("1", "1")] * 4
    assert marked(page, DELETE) == [("1", "3")] * 4
    assert page.locator(".matrix tr.chosen").count() == 4
    assert page.locator("#status").inner_text() == "Selected: delete; class ✕ bee: 4 samples on the map."
    page.keyboard.press("Escape")
    assert marked(page, ORIGINAL) == []
    page.locator(f'.map[data-network="{ORIGINAL}"] path[data-true="2"]').first.click(force=True)
    assert marked(page, RETRAINED) == [("2", "2")] * 4
    page.locator("#clear").click()
    assert page.locator(".networks .chosen").count() == 0


def test_samples_are_marked_everywhere(page):
    """Those of a cell, which arrows reach, and those in a rectangle on a map."""
    matrix = page.locator(f'figure:not(.map)[data-network="{DELETE}"] .matrix')
    matrix.locator("td[tabindex='0']").focus()
    for arrow in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(arrow)
    page.keyboard.press("Enter")
    assert cells(page, DELETE) == [("1", "3")]
    assert cells(page, ORIGINAL) == [("1", "1")]
    assert cells(page, RETRAINED) == [("1", "0")]
    assert marked(page, RETRAINED) == [("1", "0")] * 4
    assert "✕ bee predicted as dog by delete: 4 samples" in page.locator("#status").inner_text()
    page.keyboard.press("Enter")
    assert cells(page, DELETE) == []

    box = page.locator(f'.map[data-network="{ORIGINAL}"] svg').bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    some = marked(page, ORIGINAL)
    assert 0 < len(some) < 16
    assert [true for true, _ in marked(page, RETRAINED)] == [true for true, _ in some]
    assert set(cells(page, ORIGINAL)) == set(some)
    assert set(cells(page, RETRAINED)) == set(marked(page, RETRAINED))
    assert f"{len(some)} samples on the map" in page.locator("#status").inner_text()


def test_narrow_and_without_scripts(browser, tmp_path):
    """Nothing but the table of measures is wider than a telephone; without scripts all matrices and maps are visible."""
    path = tmp_path / "comparison.html"
    write_comparison(sample_comparison(), path)
    narrow = browser.new_page(viewport={"width": 390, "height": 800})
    narrow.goto(path.as_uri())
    assert narrow.evaluate("document.documentElement.scrollWidth") == 390
    narrow.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".networks figure:visible").count() == 8
    assert page.locator("button:visible").count() == 0
    context.close()
