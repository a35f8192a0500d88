"""A study with everything that runs write, exported whole: plain, from another baseline, and with a lost seed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from browser import CONTRAST, Page
from speed import generate

from mhc_lab.report import export

FIGURES = ("loss_gap", "loss_steps", "quality_cost", "gradient_norm", "gains", "matrices", "spread", "scaling")
BASELINES = (None, "mhc_2")


@pytest.fixture(scope="module", params=BASELINES, ids=str)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, str | None]:
    """The folder of an export, what it gave, and the baseline that was named."""
    results = tmp_path_factory.mktemp("whole")
    generate(results, rows=7, seeds=3, points=30)
    (results / "runs" / "hc-000001000002" / "record.json").unlink()
    return results / "big", export(results, "big", baseline=request.param), request.param


def test_everything_is_there(exported: tuple[Path, Any, str | None]) -> None:
    folder, done, _ = exported
    assert done.absent == []
    assert done.warnings == ["1 of 21 cells have no result (1 not run), in rows hc_1"]
    written = {path.relative_to(folder).as_posix() for path in done.paths}
    assert written == {
        *("table.md", "table.tex", "table.csv", "report.html", "provenance.json"),
        *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")),
    }


def test_the_baseline_is_the_same_in_all_of_it(exported: tuple[Path, Any, str | None]) -> None:
    folder, _, baseline = exported
    named = baseline or "identity"
    assert f"Loss gap: row − {named}," in (folder / "table.md").read_text()
    assert f"Loss gap: row − {named}," in (folder / "report.html").read_text()
    assert f'"baseline": "{named}"' in (folder / "provenance.json").read_text()
    assert "|control − identity|" in (folder / "report.html").read_text()


def test_ids_on_the_page_are_its_own(exported: tuple[Path, Any, str | None]) -> None:
    page = (exported[0] / "report.html").read_text()
    ids = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert ids.most_common(1)[0][1] == 1
    assert set(FIGURES) <= ids.keys()
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert referred <= ids.keys()


def test_real_figures_in_a_real_browser(exported: tuple[Path, Any, str | None], driver: Any) -> None:
    page = Page(driver)
    page.open(exported[0] / "report.html")
    assert driver.get_log("browser") == []
    sizes = page.run("return [...document.querySelectorAll('figure svg')].map((f) => f.getBoundingClientRect().width)")
    assert len(sizes) == len(FIGURES)
    assert min(sizes) > 300
    page.system("dark")
    assert page.run(CONTRAST) == []
    page.width(360, 740)
    assert page.run("return document.scrollingElement.scrollWidth") == 360
