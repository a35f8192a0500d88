"""The report page: what it holds, that it is whole by itself, and that nothing in it can be mistaken for markup."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from importlib import resources

import pytest

from mhc_lab.report.figures.style import GRID, INK, MUTED, PAPER, drawing, panels, svg
from mhc_lab.report.frame import load
from mhc_lab.report.layout import lay_out
from mhc_lab.report.page import render
from mhc_lab.report.page.inline import DARK, inline
from mhc_lab.report.page.origin import facts
from mhc_lab.report.provenance import provenance
from mhc_lab.report.summary import summarize

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Elements with their attributes and text; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data) -> None:
        if data.strip():
            self.texts.append((self.open[-1], " ".join(data.split())))

    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag not in ("style", "script"))

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.elements if attribute in attrs]


@pytest.fixture
def page(full_study, write_config, draw_page) -> Reader:
    for row, variant in (("identity", "identity"), ("mhc", "mhc"), ("hc", "hc")):
        write_config(row, variant)
    return Reader(draw_page(full_study))


def table_rows(html: str) -> dict[str, str]:
    """The tbody of every row of the table, by the row's name."""
    bodies = re.findall(
        r"<tbody[^>]*>\s*<tr>\s*<th scope=\"row\" data-sort=.*?</tbody>\s*(?=<tbody|</table>)", html, re.S
    )
    return {re.search(r'data-sort="([^"]*)"', body).group(1): body for body in bodies}


def test_it_is_one_file_that_asks_for_nothing(page) -> None:
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for key in ("src", "href", "xlink:href", "action", "srcset"):
            assert attrs.get(key, "#").startswith(("#", "data:")), (tag, attrs)
    policy = next(attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none';")
    assert not [text for tag, text in page.texts if tag == "style" and re.search(r"url\(|@import", text)]


def test_ids_are_unique_and_everything_that_is_referred_to_is_there(page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [value for key in ("href", "xlink:href") for value in page.values(key)]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    assert set(page.values("aria-controls")) <= set(ids)
    assert "loss_steps" in ids


def test_the_head_says_what_was_compared_and_what_became_of_it(page) -> None:
    text = page.text()
    assert "6 rows, seeds 0–4, corpus stdlib c0ffee, on cpu: 30 runs: 28 finished, 1 failed, 1 diverged." in text
    assert "compared with identity , seed by seed" in text
    assert "Warning" in text


def test_every_row_has_its_notes_difference_and_runs(full_study, write_config, draw_page) -> None:
    for row in ("identity", "mhc"):
        write_config(row, row)
    rows = table_rows(draw_page(full_study))
    assert list(rows) == ["identity", "control", "mhc", "identity_hc", "mhc_res_only", "hc"]
    assert "<dt>residual.variant</dt><dd>identity → <b>mhc</b></dd>" in rows["mhc"]
    assert "<dt>residual.t_max</dt><dd>– → <b>20</b></dd>" in rows["mhc"]
    assert "hc: no run has a config.yaml yet" in rows["hc"]
    assert "control arm: identity with another initialisation and data order" in rows["control"]
    for seed, gap in enumerate(("−0.1000", "−0.1100", "−0.0900", "−0.1000", "−0.1050")):
        assert re.search(rf"mhc-{seed:012x}</code>.*?<td>{gap}</td>", rows["mhc"])


def test_runs_that_did_not_finish_are_named_in_words(full_study, draw_page) -> None:
    row = table_rows(draw_page(full_study))["hc"]
    assert '<span class="word lost">1 failed</span>' in row
    assert '<span class="word lost">1 diverged</span>' in row
    assert re.search(r'lost">failed</td>.*?out of memory\nin the backward pass', row, re.S)
    assert re.search(r'lost">diverged</td>.*?<td>120</td>.*?loss is nan', row, re.S)


def test_cells_sort_by_raw_numbers_and_blanks_have_none(full_study, draw_page) -> None:
    rows = table_rows(draw_page(full_study))

    def raw(row: str) -> list[str]:
        return re.findall(r'data-sort="([^"]*)"', rows[row].split('class="more"')[0])

    assert float(raw("mhc")[1]) == pytest.approx(-0.101)
    assert raw("mhc")[4:7] == ["2", "2", "2"]
    assert raw("identity_hc")[4:7] == ["0", "1", "2"]
    assert raw("identity")[9] == ""  # a baseline has no p-value
    assert "9213.4" in raw("hc")


def test_names_titles_and_reasons_are_text(study, write_config, draw_page) -> None:
    study.spec["title"] = study.spec["command"] = EVIL
    study.row("identity", [2.5, 2.4, 2.3]).row(EVIL.replace("/", "-"), [2.5, None, 2.3], variant="mhc")
    study.cell(EVIL.replace("/", "-"), 1, None, status="failed", reason=EVIL, metrics={}, cost={})
    write_config("identity", "identity", expand=EVIL)
    html = draw_page(study.save())
    page = Reader(html)
    assert "alert(1)" not in "".join(text for tag, text in page.texts if tag == "script")
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 2
    assert html.count("&lt;script&gt;alert(1)") > 4


def test_a_figure_that_cannot_be_drawn_says_why(page) -> None:
    assert "Not drawn: loss_scale (one model size only: run the grid scaling)" in page.text()
    assert "Figure 1. Loss gap over training." in page.text()


def test_provenance_and_configuration_are_in_full(page) -> None:
    text = page.text()
    for part in ("mhc-lab ablate demo", "mhc-lab export demo", "trainer.max_steps=50", "c0ffee", "abc123", "2.6.6"):
        assert part in text, part
    assert "learning_rate 0.003" in text
    assert "Configuration of identity" in text


def test_rows_may_have_baselines_of_their_own(study, write_config, draw_page) -> None:
    study.row("identity", [2.5, 2.6, 2.4]).row("mhc", [2.4, 2.5, 2.3])
    study.row("wide", [2.2, 2.1, 2.0], variant="identity", baseline="wide")
    study.row("wide_mhc", [2.1, 2.0, 1.9], variant="mhc", baseline="wide")
    for row, variant in (("identity", "identity"), ("wide", "identity_wide"), ("wide_mhc", "mhc")):
        write_config(row, variant)
    html = draw_page(study.save())
    rows = table_rows(html)
    assert "with a baseline of its own (identity, wide)" in " ".join(html.split())
    assert "Configuration, wide → wide_mhc" in rows["wide_mhc"]
    assert "Configuration, identity → wide" in rows["wide"]
    assert "<td>−0.1000</td>" in rows["wide_mhc"]


def test_a_study_with_hardly_anything_is_shown(study, draw_page) -> None:
    study.row("identity", [2.5]).row("mhc", [None])
    page = Reader(draw_page(study.save()))
    assert "mhc: no run has a config.yaml yet" in page.text()
    assert "1 not run" in page.text()


def test_inlined_figures_have_ids_of_their_own_and_the_colours_of_the_page() -> None:
    with drawing():
        figure, (axes,) = panels()
        axes.plot([0, 1], [0, 1], "o", color="#0072b2", label="mhc")
        axes.text(0, 0, "muted", color=MUTED)
        axes.legend()
    text = svg(figure, "gains")
    one, two = inline(text, "gains", 'the "gains"'), inline(text, "spread", "spread")
    for colour, name in ((INK, "ink"), (MUTED, "muted"), (GRID, "grid"), (PAPER, "paper")):
        assert colour in text
        assert colour not in one
        assert f"var(--{name})" in one
    assert "#0072b2" in one
    ids = [re.findall(r'\sid="([^"]+)"', str(figure)) for figure in (one, two)]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', one)) <= set(ids[0])
    assert 'role="img"' in one and "the &quot;gains&quot;" in one
    assert not re.search(r"<metadata|<style|<!--|<\?xml|<!DOCTYPE|<svg[^>]* (?:width|height)=", one)


def test_data_is_lightened_in_the_dark_as_far_as_it_must_be() -> None:
    with drawing():
        figure, (axes,) = panels()
        for colour in ("#803800", "#e69f00", "#0072b2"):
            axes.plot([0, 1], [0, 1], color=colour)
    drawn = inline(svg(figure, "gains"), "gains", "gains", {"#803800", "#E69F00"})
    assert (
        f"--paper: light-dark(#ffffff, {DARK});"
        in resources.files("mhc_lab.report.page").joinpath("page.css").read_text()
    )
    assert re.search(r"stroke: light-dark\(#803800, #a[0-9a-f]{5}\)", drawn)
    assert "light-dark(#e69f00, #e69f00)" in drawn
    assert "stroke: #0072b2" in drawn


def test_facts_leave_out_what_stands_elsewhere_and_keep_what_is_new() -> None:
    origin = {
        "study": "demo",
        "command": "mhc-lab ablate demo",
        "git": {"commit": "0123abc", "dirty": True},
        "versions": {"torch": "2.13", "triton": None},
        "margin": 0.01,
        "runs": {"identity": {}},
        "overrides": [],
    }
    assert facts(origin) == [
        ("trained by", "mhc-lab ablate demo", True),
        ("code", "commit 0123abc, with uncommitted changes", False),
        ("versions", "torch 2.13", False),
        ("margin", "0.01", False),
    ]
    assert facts({"git": None}) == [("code", "not in a git repository", False)]


def test_a_thousand_runs_are_rendered_in_time(study, write_config) -> None:
    study.row("identity", [2.5, 2.51, 2.52, 2.53, 2.54], streams=1)
    for number in range(199):
        study.row(f"row_{number}", [2.4, 2.41, 2.42, 2.43, 2.44 + number / 1e4], modes="ddd", variant="mhc")
    write_config("identity", "identity")
    for number in range(199):
        write_config(f"row_{number}", "mhc", t_max=number + 1)
    loaded = load(study.save(), "demo")
    summary = summarize(loaded)
    layout, origin = lay_out(loaded, summary), provenance(loaded)
    start = time.process_time()
    html = render(loaded, summary, layout, [], origin)
    assert time.process_time() - start < 5  # 1 s on an idle machine
    assert len(html) < 5e6
    assert 'class="scroll tall"' in html
    assert len(table_rows(html)) == 200


def test_no_torch_is_imported() -> None:
    code = "import sys, mhc_lab.report.page, mhc_lab.report.configs; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
