"""The exported files, as a reader and as LaTeX sees them."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from mhc_lab.errors import LabError
from mhc_lab.report import export, print_table
from mhc_lab.report.latex import escape
from mhc_lab.report.layout import number_notes
from mhc_lab.report.summary import COLUMNS
from mhc_lab.report.texts import count, interval, p_value, spanned, with_interval

ALL = ("md", "latex", "csv")


def exported(results: Path, name: str, **options: Any) -> str:
    export(results, "demo", ALL, **options)
    return (results / "demo" / name).read_text()


def test_files_and_their_paths(full_study: Path) -> None:
    folder = full_study / "demo"
    paths = export(full_study, "demo").paths
    assert paths[:3] == [folder / name for name in ("table.md", "table.tex", "table.csv")]
    assert paths[-2:] == [folder / "report.html", folder / "provenance.json"]
    assert {path.parent for path in paths[3:-2]} == {folder / "figures"}
    assert {path.name for path in paths[3:-2]} >= {"loss_gap.svg", "loss_gap.png", "quality_cost.svg"}
    assert all(path.stat().st_size for path in paths)
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_only_the_formats_asked_for(full_study: Path) -> None:
    export(full_study, "demo", ["csv"])
    assert {file.name for file in (full_study / "demo").iterdir()} == {
        "study.json",
        "timing.json",
        "table.csv",
        "provenance.json",
    }


def test_csv_header_and_full_precision(full_study: Path) -> None:
    text = exported(full_study, "table.csv")
    assert text.splitlines()[0] == ",".join(COLUMNS)
    frame = pd.read_csv(io.StringIO(text)).set_index("row")
    assert list(frame["distinguishable"].loc[["mhc", "identity_hc"]]) == [True, False]
    assert pd.isna(frame.loc["identity", "distinguishable"])
    assert frame.loc["mhc", "val_loss"] == (2.4 + 2.41 + 2.4 + 2.41 + 2.425) / 5
    assert list(frame.loc["identity_hc", ["h_res", "h_pre", "h_post"]]) == ["fixed", "static", "dynamic"]
    assert ",1234567,7654321," in text


def test_markdown_table(full_study: Path) -> None:
    lines = exported(full_study, "table.md").splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in table}
    assert rows["mhc"][2:5] == ["✓", "✓", "✓"]
    assert rows["identity_hc"][2:5] == ["", "(✓)", "✓"]
    assert rows["mhc"][8] == r"**−0.1010 ± 0.0092\***"  # the best, as it is distinguishable
    assert rows["mhc"][9:11] == ["< 0.001".replace("<", r"\<"), "−0.027"]
    assert not any("**" in cell for name in rows if name != "mhc" for cell in rows[name])
    assert rows["identity"][8] == "0"
    head = [cell.strip() for cell in table[0].split("|")]
    column = {name: head.index(name) for name in ("composite gain (fwd / bwd)", "time (ms/step)", "note", "seeds")}
    assert rows["hc"][column["composite gain (fwd / bwd)"]] == "9,213 / 1.50"
    assert rows["mhc"][column["time (ms/step)"]] == "14.1 (1.41×)"
    assert rows["identity_hc"][column["note"]] == "inside noise floor"
    assert rows["mhc_res_only"][8] == "identical by construction"
    assert rows["mhc_res_only"][column["note"]] == "(2)"
    assert (rows["hc"][column["seeds"]], rows["mhc"][column["seeds"]]) == ("3 of 5", "5")
    assert any(line.startswith("2. degenerate: streams stay equal") for line in lines)
    assert "3. 1 of 5 seeds failed: out of memory; 1 of 5 seeds diverged: loss is nan; means over 3 seeds" in lines
    assert "4. gap not tested: the seeds left are the calm ones" in lines


def test_legend(full_study: Path) -> None:
    text = exported(full_study, "table.md")
    assert "Seeds: 0, 1, 2, 3, 4" in text
    assert r"Noise floor: 0.0300, the largest \|control − identity\|" in text
    assert r"\*: distinguishable from identity: paired t test, Holm-adjusted over 2 rows, p \< 0.05." in text
    assert "half width of the 95 % t interval" in text


def test_legend_without_control_timing_or_paper(study: Any) -> None:
    text = exported(study.row("identity", [2.5, 2.6, 2.4]).row("mhc", [2.3, 2.5, 2.2]).save(), "table.md")
    assert "Noise floor: not measured (no control arm)" in text
    assert "no timing pass" in text
    assert "paper gap" not in text
    assert "Holm-adjusted over 1 row," in text


def test_a_tuned_study_says_what_its_rows_have(study: Any) -> None:
    study.row("identity", [2.5, 2.6, 2.4]).row("hc", [2.4, 2.5, 2.4]).row("mhc", [2.3, 2.5, 2.2])
    for row, rate in zip(study.spec["rows"], (0.002, 0.002, 0.004), strict=True):
        row["tuned"] = {"sweep": "rates", "overrides": [f"optim.learning_rate={rate}"], "seeds": [0, 1]}
    wanted = "Tuned: what the sweep rates found best on seeds 0, 1: optim.learning_rate=0.002 for identity, hc; "
    assert wanted + "optim.learning_rate=0.004 for mhc." in exported(study.save(), "table.md")


def test_pipes_and_stars_do_not_break_markdown(study: Any) -> None:
    study.row("a|b", [2.5, 2.5, 2.6]).row("c\\d", [2.5, 2.5, 2.6])
    study.row("identity", [2.5, 2.6, None])
    study.cell("identity", 2, None, status="failed", reason="a|b *c*")
    text = exported(study.save(), "table.md")
    assert r"| a\|b |" in text
    assert r"| c\\d |" in text
    assert r"1 of 3 seeds failed: a\|b \*c\*; means over 2 seeds" in text


def test_latex_structure(full_study: Path) -> None:
    text = exported(full_study, "table.tex")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert re.findall(r"\\begin\{(\w+)\}", body) == ["table", "tabular", "tabular", "minipage"]
    assert re.findall(r"\\end\{(\w+)\}", body) == ["tabular", "tabular", "minipage", "table"]
    assert not re.search(r"(?<!\\)_", re.sub(r"\$[^$]*\$|\\label\{.*\}", "", body))
    assert not re.search(r"(?<!\\)%(?!$)", body, flags=re.MULTILINE)
    for panel, columns in zip(re.findall(r"\\toprule(.*?)\\bottomrule", body, re.DOTALL), (10, 8), strict=True):
        lines = [line for line in panel.strip().splitlines() if line != r"\midrule"]
        assert len(lines) == 7
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}
    assert r"mhc & \checkmark{} & \checkmark{} & \checkmark{} & 4 & 5" in body
    assert r"identity\_hc\textsuperscript{2} &  & (\checkmark{}) & \checkmark{}" in body
    assert r"\textbf{$-$0.1010 $\pm$ 0.0092\textsuperscript{*}}" in body


def test_latex_escapes() -> None:
    assert escape("50% of a_b & c$ {x} #1 ~ ^ \\") == (
        r"50\% of a\_b \& c\$ \{x\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert escape("H_res = I") == r"$\mathcal{H}^{\mathrm{res}}$ = I"
    assert escape("café α") == "cafe ?"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(study: Any, tmp_path: Path) -> None:
    study.spec["title"] = "100% of {n} streams & H_res ~ α_res #1 ✓"
    study.row("identity", [2.5, 2.52, 2.49], paper=0.0)
    study.row("my_row", [2.4, None, 2.39], modes="dsf")
    study.cell("my_row", 1, None, status="failed", reason='OSError: "/tmp/x_y" ^ 100% <|>\\ ∇ 日本')
    export(study.save(), "demo", ["latex"])
    document = (
        r"\documentclass{article}\usepackage{booktabs,amssymb,graphicx}\begin{document}\input{table.tex}\end{document}"
    )
    shutil.copy(study.results / "demo" / "table.tex", tmp_path)
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_unknown_format_names_the_nearest(full_study: Path) -> None:
    with pytest.raises(LabError, match="did you mean 'latex'"):
        export(full_study, "demo", ["tex"])
    assert not (full_study / "demo" / "table.md").exists()


def test_folder_that_cannot_be_written(full_study: Path) -> None:
    (full_study / "demo" / "table.csv").mkdir()
    with pytest.raises(LabError, match="demo: cannot be written"):
        export(full_study, "demo", ["csv"])


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (2.34567, 0.01234, "2.346 ± 0.012"),
        (2.34567, 0.00096, "2.34567 ± 0.00096"),
        (-0.3, 12.3, "0 ± 12"),
        (2.34567, float("nan"), "2.3457"),
        (2.34567, 0.0, "2.3457 ± 0.0000"),
        (1.0, 0.0996, "1.00 ± 0.10"),
    ],
)
def test_numbers_are_rounded_by_their_uncertainty(mean: float, half: float, text: str) -> None:
    assert with_interval(mean, half) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(241.2, 1286.4, "241–1,286"), (24.2, 24.4, "24"), (float("nan"), float("nan"), "–")],
)
def test_what_seeds_span(low: float, high: float, text: str) -> None:
    assert spanned(low, high) == text


def test_intervals_and_p_values_as_text() -> None:
    assert interval(-0.0312, 0.0112) == "[−0.031, +0.011]"
    assert interval(float("nan"), 1.0) == "–"
    assert [p_value(p) for p in (0.04321, 0.0002, 1.0, float("nan"))] == ["0.043", "< 0.001", "1.000", "–"]
    assert [p_value(p) for p in (0.0014, 0.0497, 0.0502)] == ["0.001", "0.0497", "0.0502"]


def test_counts_as_text() -> None:
    assert [count(n) for n in (999, 234_567, 999_700, 999_999_999, 1.25e6)] == ["999", "235k", "1M", "1B", "1.25M"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.0}, "--margin 0: must be a number above 0"),
        ({"margin": float("inf")}, "--margin inf: must be a number above 0"),
        ({"gaps": [-0.1]}, "--gap -0.1: must be numbers above 0"),
        ({"baseline": "mhcc"}, "--baseline mhcc: study 'demo' has no such row; did you mean 'mhc'"),
        ({"baseline": "control"}, "the control arm of study 'demo' cannot be the baseline"),
    ],
)
def test_options_out_of_their_domain(options: dict[str, Any], words: str, full_study: Path) -> None:
    with pytest.raises(LabError, match=re.escape(words)):
        export(full_study, "demo", ["md"], **options)


def test_what_is_missing_is_said(full_study: Path) -> None:
    done = export(full_study, "demo", ["csv"])
    assert done.warnings == ["1 of 30 cells have no result (1 failed), in rows hc"]
    assert not done.complete


def test_a_baseline_without_a_finished_run_is_said(study: Any) -> None:
    study.row("identity", [None, None]).row("mhc", [2.4, 2.41])
    done = export(study.save(), "demo", ["md"])
    assert "the baseline identity has no finished run: no gaps to it" in done.warnings
    assert "no gap: no finished seed in common with the baseline" in (study.results / "demo" / "table.md").read_text()


def test_figures_of_a_former_export_do_not_stay(full_study: Path) -> None:
    export(full_study, "demo", ["svg"])
    figures = full_study / "demo" / "figures"
    assert (figures / "quality_cost.svg").is_file()
    (full_study / "demo" / "timing.json").unlink()
    done = export(full_study, "demo", ["svg"])
    assert not (figures / "quality_cost.svg").exists()
    assert any(line.startswith("quality_cost: ") for line in done.absent)


def test_equal_notes_share_a_number() -> None:
    assert number_notes([["a"], [], ["b", "a"]]) == (["a", "b"], [[1], [], [2, 1]])


def test_terminal_table_is_narrower_than_120(full_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(full_study, "demo")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "warning: 1 of 30 cells have no result (1 failed), in rows hc"
    assert max(map(len, lines)) < 120
    mhc = next(line for line in lines if line.startswith(" mhc "))
    assert mhc.split()[1:4] == ["✓", "✓", "✓"]
    for text in ("2.409 ± 0.013", "−0.1010 ± 0.0092*", "−0.027", "1.00 / 1.50", "1.41×"):
        assert f" {text} " in mhc
    assert "left out for want of room: MiB" in lines


@pytest.mark.parametrize("width", [119, 100, 80, 60])
def test_nothing_of_a_terminal_table_is_cut_off(study: Any, width: int) -> None:
    study.row("identity", [2.5, 2.6, 2.4]).row("a_row_of_some_length", [2.512345, 2.587654, 2.432109])
    results = study.save(timing={"identity": 1.0, "a_row_of_some_length": 2.0})
    out = io.StringIO()
    print_table(results, "demo", Console(file=out, width=width))
    rows = [line for line in out.getvalue().splitlines() if line.startswith((" row", " identity", " a_row"))]
    assert len(rows) == 3
    assert all(len(line) <= width and "…" not in line for line in rows)
    assert rows[0].split()[-1] == "note"
    assert "+0.011 ± 0.055" in rows[2]
    assert ("2.51 ± 0.19 " in rows[2]) == ("val loss" in rows[0])
    assert ("left out for want of room: " in out.getvalue()) == (width < 119)


def test_terminal_table_on_a_given_console(study: Any) -> None:
    out = io.StringIO()
    study.row("identity", [2.5, 2.6, 2.4]).row("a[b]c", [2.3, 2.5, 2.2])
    print_table(study.save(), "demo", Console(file=out, width=119))
    assert "a[b]c" in out.getvalue()
    assert "table.md" not in out.getvalue()


def test_chosen_columns_stand_in_one_panel_with_as_few_notes_as_asked(full_study: Path) -> None:
    chosen = ["val_loss", "loss_gap", "peak_memory_mb"]
    export(full_study, "demo", ["latex", "md"], columns=chosen, notes="none")
    text = (full_study / "demo" / "table.tex").read_text()
    assert text.count(r"\begin{tabular}") == 1
    assert r"Row & Val.\ loss (nats/token) & Loss gap (nats/token) & Memory (MiB) \\" in text
    assert "control arm: identity with another" in text
    assert "Warning" in text
    assert "Seeds:" not in text
    lines = (full_study / "demo" / "table.md").read_text().splitlines()
    assert "| row | val loss (nats/token) | loss gap (nats/token) | memory (MiB) | note |" in lines
    export(full_study, "demo", ["latex"], notes="short")
    text = (full_study / "demo" / "table.tex").read_text()
    assert text.count(r"\begin{tabular}") == 2
    assert "Seeds:" in text
    assert "Memory: peak" not in text
    with pytest.raises(LabError, match="--columns val_los: no such column of this table; did you mean 'val_loss'"):
        export(full_study, "demo", ["md"], columns=["val_los"])
    with pytest.raises(LabError, match="--notes few: choose one of"):
        export(full_study, "demo", ["md"], notes="few")  # type: ignore[arg-type]
