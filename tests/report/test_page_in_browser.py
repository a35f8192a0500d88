"""The report page in a real headless Chromium: it opens, sorts, unfolds, turns dark, prints, and fits a phone."""

from __future__ import annotations

import base64
import json

import pytest
from browser import CONTRAST, Page

GAP, NOTE, BLANKS = 1, 2, 9  # columns: the loss gap, its note, one that the baseline has no value of


@pytest.fixture
def page(driver, full_study, write_config, draw_page, tmp_path) -> Page:
    for row, variant in (("identity", "identity"), ("mhc", "mhc"), ("hc", "hc")):
        write_config(row, variant)
    file = tmp_path / "report.html"
    file.write_text(draw_page(full_study), encoding="utf-8")
    opened = Page(driver)
    opened.open(file)
    return opened


def test_it_opens_without_a_complaint_or_a_request(page) -> None:
    assert page.driver.title == "Residual variants at nano scale"
    for button in page.driver.find_elements("css selector", "#results button, #all, #theme"):
        page.run("arguments[0].click()", button)
    assert page.driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked == [page.driver.current_url]


def test_a_head_sorts_up_down_and_back(page) -> None:
    before = page.names()
    button = page.head(GAP).find_element("css selector", "button")

    button.click()
    numbers = [float(value) for value in page.column(GAP)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 2
    assert page.head(GAP).get_attribute("aria-sort") == "ascending"

    button.send_keys("\ue007")  # Enter
    assert [float(value) for value in page.column(GAP)] == sorted(numbers, reverse=True)
    assert page.head(GAP).get_attribute("aria-sort") == "descending"

    button.send_keys(" ")
    assert page.names() == before
    assert page.head(GAP).get_attribute("aria-sort") is None


def test_blanks_are_last_both_ways_and_words_sort_as_words(page) -> None:
    button = page.head(BLANKS).find_element("css selector", "button")
    for turn in (False, True):
        button.click()
        values = page.column(BLANKS)
        known = [float(value) for value in values if value]
        assert 0 < len(known) < len(values)
        assert [float(value) for value in values[: len(known)]] == sorted(known, reverse=turn)
    page.head(0).find_element("css selector", "button").click()
    assert page.names() == sorted(page.names())
    assert page.head(BLANKS).get_attribute("aria-sort") is None


def test_a_row_opens_by_keyboard_and_stays_open_when_sorted(page) -> None:
    assert page.shown() == []
    button = page.driver.find_element("xpath", "//button[text()='hc']")
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys("\ue007")
    more = button.get_attribute("aria-controls")
    assert (button.get_attribute("aria-expanded"), page.shown()) == ("true", [more])
    text = page.driver.find_element("id", more).text
    for part in ("residual.variant", "identity → hc", "out of memory", "diverged"):
        assert part in text

    page.head(GAP).find_element("css selector", "button").click()
    assert page.run("return arguments[0].closest('tbody').rows[1].id", button) == more
    assert page.shown() == [more]
    button.send_keys(" ")
    assert page.shown() == []


def test_all_rows_open_and_close_at_once(page) -> None:
    button = page.driver.find_element("id", "all")
    button.click()
    assert len(page.shown()) == len(page.names())
    assert button.text == "Close all rows"
    button.click()
    assert page.shown() == []


def test_dark_is_dark_in_the_figures_too(page) -> None:
    light = page.colours()
    page.system("dark")
    dark = page.colours()
    assert all(was != now for was, now in zip(light, dark, strict=True))
    assert dark[1] == dark[2]
    assert page.run("return getComputedStyle(document.querySelector('#loss_steps svg path')).fill") == dark[0]

    toggle = page.driver.find_element("id", "theme")
    assert toggle.get_attribute("aria-label") == "Light theme"
    toggle.click()
    assert page.colours() == light
    toggle.click()
    assert page.colours() == dark
    assert page.run("return location.protocol === 'file:' && document.cookie === ''")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_told_from_what_is_behind_it(page, theme: str) -> None:
    page.system(theme)
    page.driver.find_element("id", "all").click()
    assert page.run(CONTRAST) == []


def test_it_fits_a_phone(page) -> None:
    page.width(360, 740)
    page.driver.find_element("id", "all").click()
    assert page.run("return document.scrollingElement.scrollWidth") == 360
    sizes = page.run(
        "return [...document.querySelectorAll('body *:not(script):not(style):not(svg *)')].filter((element) =>"
        "element.checkVisibility() && element.innerText?.trim())"
        ".map((element) => parseFloat(getComputedStyle(element).fontSize))"
    )
    assert min(sizes) >= 12
    figure = page.run("return document.querySelector('#loss_steps svg').getBoundingClientRect().width")
    assert 300 < figure <= 360  # whole; it stays sharp where fingers enlarge it


@pytest.mark.parametrize("width", [1280, 400])
def test_gaps_and_their_notes_are_in_view(page, width: int) -> None:
    page.width(width, 900)
    right = (
        "return Math.max(...[...document.querySelectorAll('#results > tbody > tr:not(.more)')]"
        ".map((row) => row.cells[arguments[0]].getBoundingClientRect().right))"
    )
    for column in (0, GAP, NOTE):
        assert page.run(right, column) <= width - 8
    assert any(page.column(NOTE))


def test_the_first_column_stays_and_covers_what_passes_under_it(page) -> None:
    page.width(360, 740)
    scroll = "const box = results.parentElement; box.scrollLeft = 300; "
    assert page.run(scroll + "return box.scrollLeft") == 300
    left, right, opaque, on_top = page.run(
        scroll + "const name = results.tBodies[2].rows[0].cells[0]; const at = name.getBoundingClientRect();"
        "name.scrollIntoView({ block: 'center', behavior: 'instant' });"
        "const now = name.getBoundingClientRect();"
        "const top = document.elementFromPoint(now.right - 4, now.top + now.height / 2);"
        "return [now.left - box.getBoundingClientRect().left, now.width / box.clientWidth,"
        "getComputedStyle(name).backgroundColor === getComputedStyle(document.body).backgroundColor,"
        "name.contains(top)]"
    )
    assert left == 0
    assert right < 0.6  # there is room for the others
    assert opaque
    assert on_top


def test_what_a_row_opens_to_is_in_view_wherever_the_table_stands(page) -> None:
    page.width(360, 740)
    page.driver.find_element("id", "all").click()
    left, right = page.run(
        "const box = results.parentElement; box.scrollLeft = 300;"
        "const inside = document.querySelector('.inside').getBoundingClientRect();"
        "const around = box.getBoundingClientRect(); return [inside.left - around.left, around.right - inside.right]"
    )
    assert abs(left) < 1
    assert abs(right) < 1


def test_it_prints_light_with_what_is_open(page) -> None:
    page.system("dark")
    page.driver.find_element("xpath", "//button[text()='mhc']").click()
    page.cdp("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    white, ink, figure = page.colours()
    assert white == "rgb(255, 255, 255)"
    assert ink == figure == "rgb(26, 26, 27)"
    assert page.run("return [...document.querySelectorAll('#all, #theme')].map((b) => b.checkVisibility())") == [
        False,
        False,
    ]
    assert len(page.shown()) == 1
    page.cdp("Emulation.setEmulatedMedia", media="")
    pdf = base64.b64decode(page.cdp("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")


def test_without_scripts_everything_is_open(page) -> None:
    page.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.driver.refresh()
        buttons = page.driver.find_elements("css selector", "#results button")
        assert buttons
        assert not any(button.is_enabled() for button in buttons)
        more = page.driver.find_elements("css selector", ".more")
        assert len(more) == 6
        assert all(one.size["height"] > 50 for one in more)
        assert not page.driver.find_element("id", "theme").is_displayed()
        assert not page.driver.find_element("id", "all").is_displayed()
    finally:
        page.cdp("Emulation.setScriptExecutionDisabled", value=False)
