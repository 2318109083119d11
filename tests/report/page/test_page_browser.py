"""The page in a real browser: it sorts, slides, explores, fits a phone, and asks nobody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hqdm_bench.report.page import write_suite_page

if TYPE_CHECKING:
    from conftest import Browser

pytestmark = pytest.mark.browser

TABLE = "#table1-imagenet table.sortable"  # the first one: values


@pytest.fixture
def page(full: Any, browser: Browser) -> Browser:
    """The page of a full project, loaded in a wide window."""
    path = write_suite_page(full.root, full.suite, full.catalogue)
    browser.path = path
    browser.open(path)
    assert browser.faults == []
    return browser


def column(page: Browser, place: int) -> list[str]:
    """Texts of one column of the first table."""
    script = f"[...document.querySelector('{TABLE}').tBodies[0].rows]"
    return page.run(f"{script}.map((row) => row.cells[{place}].textContent.trim())")


def values(texts: list[str]) -> list[float]:
    return [float(text.split(" ")[0]) for text in texts if text not in ("", "—")]


def head(place: int) -> str:
    return f"{TABLE} th[data-column='{place}']"


def sort_state(page: Browser, place: int) -> str:
    return page.run(f'document.querySelector("{head(place)}").getAttribute("aria-sort")')


FID = 6  # Method, W/A, n, IS paper, IS ours, FID paper, FID ours


def test_a_click_sorts_by_numbers_and_a_third_restores(page: Browser) -> None:
    before = column(page, FID)
    assert values(before) != sorted(values(before))
    page.click(f"{head(FID)} button")
    assert sort_state(page, FID) == "ascending"
    rising = column(page, FID)
    assert values(rising) == sorted(values(before))
    assert sorted(rising) == sorted(before)
    blanks = before.count("")
    assert blanks
    assert rising[-blanks:] == [""] * blanks
    page.click(f"{head(FID)} button")
    assert sort_state(page, FID) == "descending"
    falling = column(page, FID)
    assert values(falling) == sorted(values(before), reverse=True)
    assert falling[-blanks:] == [""] * blanks
    page.click(f"{head(FID)} button")
    assert sort_state(page, FID) == "none"
    assert column(page, FID) == before


def test_the_keyboard_sorts_and_one_column_at_a_time(page: Browser) -> None:
    page.run(f'document.querySelector("{head(FID)} button").focus()')
    page.press("Enter")
    assert sort_state(page, FID) == "ascending"
    page.run(f'document.querySelector("{head(1)} button").focus()')
    page.press(" ")
    assert (sort_state(page, FID), sort_state(page, 1)) == ("none", "ascending")
    widths = column(page, 1)
    assert widths.index("4/8") < widths.index("8/8") < widths.index("32/32")
    assert page.faults == []


STAGE = """(() => {
  const [under, over] = [".under", ".over"].map((one) => document.querySelector(`.picture${one}`));
  return {
    at: getComputedStyle(document.querySelector(".stage")).getPropertyValue("--at"),
    clip: getComputedStyle(over).clipPath,
    under: under.className,
    over: over.className,
    place: over.style.backgroundPosition,
    label: document.querySelector("output.student").textContent,
    text: document.querySelector("#compare-divider").getAttribute("aria-valuetext"),
  };
})()"""


def stage(page: Browser) -> dict[str, Any]:
    """What the slider shows."""
    return page.run(STAGE)


def test_the_divider_follows_keys_and_mouse(page: Browser) -> None:
    assert stage(page)["at"] == "50%"
    page.run("document.querySelector('#compare-divider').focus()")
    for _ in range(3):
        page.press("ArrowRight")
    found = stage(page)
    assert found["at"] == "53%"
    assert found["clip"] == "inset(0px 0px 0px 53%)"
    assert found["text"] == "53 % full precision"
    page.press("ArrowLeft")
    assert stage(page)["at"] == "52%"
    page.click(".pictures input", along=0.25)
    assert 20 <= int(stage(page)["at"].rstrip("%")) <= 26


def test_the_student_shown_is_the_one_chosen(page: Browser) -> None:
    gallery = json.loads(page.run("document.getElementById('data').textContent"))["gallery"]
    places = {(one["method"], one["bits"]): one["id"] for one in gallery}
    found = stage(page)
    assert found["under"].split() == ["picture", "under", f"sprite-{places['fp', 'W32A32']}"]
    assert found["label"] == "HQ-DM W4A4"
    page.run(
        "(() => { const bits = document.querySelector('#compare-bits'); bits.value = 'W8A3';"
        " bits.dispatchEvent(new Event('change')); })()"
    )
    assert f"sprite-{places['hqdm', 'W8A3']}" in stage(page)["over"].split()
    assert stage(page)["label"] == "HQ-DM W8A3"
    page.click(".sheet button[data-method='efficientdm'][data-image='7']")
    found = stage(page)
    assert f"sprite-{places['efficientdm', 'W8A3']}" in found["over"].split()
    assert found["place"].startswith("100%")
    assert page.run("document.querySelector('#compare-image').value") == "7"
    pressed = "document.querySelectorAll('.sheet button[aria-pressed=true]').length"
    assert page.run(pressed) == 2  # full precision and the student
    assert page.faults == []


def test_another_layer_and_step_are_drawn(page: Browser) -> None:
    def shown() -> tuple[str, str]:
        title = page.run("document.querySelector('#channel-title').textContent")
        return title, page.run(
            "document.querySelector('#channel-before svg text.strong').textContent"
        )

    assert page.run("document.querySelectorAll('.chart svg').length") == 2
    page.click(".layers button[data-layer='1'][data-step='1']")
    title, largest = shown()
    assert title == "middle_block.0.in_layers.2, step 9 (t = 451)"
    assert largest.startswith("Before: max/median ")
    assert largest.endswith("largest 12 (channel 7)")
    page.run(
        "(() => { const step = document.querySelector('#channel-step'); step.value = '0';"
        " step.dispatchEvent(new Event('change')); })()"
    )
    assert shown()[0] == "middle_block.0.in_layers.2, step 0 (t = 1)"
    page.run("document.querySelector('#channel-before svg').focus()")
    page.press("ArrowRight")
    reading = page.run("document.querySelector('#channel-readout').textContent")
    assert reading.startswith("Before, channel 8: ")
    page.press("ArrowLeft")
    reading = page.run("document.querySelector('#channel-readout').textContent")
    assert reading == "Before, channel 7: 12"
    assert page.faults == []


def test_claims_are_filtered_by_verdict(page: Browser) -> None:
    visible = "[...document.querySelectorAll('.claim')].filter((one) => one.offsetHeight).length"
    assert page.run(visible) == 4
    page.click(".filter button[data-verdict='open']")
    assert page.run(visible) == 2
    page.click(".filter button[data-verdict='']")
    assert page.run(visible) == 4


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_no_width_makes_the_page_scroll_sideways(page: Browser, width: int) -> None:
    page.open(page.path, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width
    wider = "[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll')"
    wider += " && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"
    assert page.run(wider) == []
    assert page.faults == []


def test_light_and_dark_differ_and_keep_their_contrast(page: Browser) -> None:
    colours = (
        "['backgroundColor', 'color'].map((name) => getComputedStyle(document.body)[name]"
        ".match(/\\d+/g).slice(0, 3).map(Number))"
    )

    def contrast() -> float:
        levels = sorted(
            sum(
                share * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
                for share, part in zip(
                    (0.2126, 0.7152, 0.0722), (c / 255 for c in colour), strict=True
                )
            )
            for colour in page.run(colours)
        )
        return (levels[1] + 0.05) / (levels[0] + 0.05)

    light = page.run(colours)
    assert contrast() > 12
    page.open(page.path, dark=True)
    assert page.run(colours) != light
    assert contrast() > 12
