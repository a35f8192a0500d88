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
from mhc_lab.report.layout import number_notes, with_interval

HEADER = (
    "row,variant,h_res,h_pre,h_post,streams,seeds,val_loss,val_loss_ci95,loss_gap,loss_gap_ci95_low,loss_gap_ci95_high,"
    "distinguishable,paper_loss_gap,max_grad_norm,loss_spikes,gain_forward,gain_backward,composite_gain_forward,"
    "composite_gain_backward,parameters,flops_per_token,ms_per_step,ms_ratio,peak_memory_mb,note"
)


def exported(results: Path, name: str) -> str:
    export(results, "demo")
    return (results / "demo" / name).read_text()


def test_files_and_their_paths(full_study: Path) -> None:
    folder = full_study / "demo"
    assert export(full_study, "demo") == [
        folder / name for name in ("table.md", "table.tex", "table.csv", "loss_gap.svg", "provenance.json")
    ]
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
    assert text.splitlines()[0] == HEADER
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
    assert rows["mhc"][8] == r"−0.1010 ± 0.0092\*"
    assert rows["mhc"][9] == "−0.027"
    assert rows["identity"][8] == "0"
    assert rows["hc"][11] == "9,213 / 1.50"
    assert rows["mhc"][15] == "14.1 (1.41×)"
    assert rows["identity_hc"][17] == "inside noise floor"
    assert rows["mhc_res_only"][17] == "identical by construction, (2)"
    assert any(line.startswith("2. degenerate: streams stay equal") for line in lines)
    assert (
        "3. 1 of 5 seeds failed: out of memory; 1 of 5 seeds diverged: loss is nan; means over 3 seeds; "
        "gap not tested: the seeds left are the calm ones" in lines
    )


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


def test_pipes_and_stars_do_not_break_markdown(study: Any) -> None:
    study.row("a|b", [2.5, 2.5, 2.6])
    study.row("identity", [2.5, 2.6, None])
    study.cell("identity", 2, None, status="failed", reason="a|b *c*")
    text = exported(study.save(), "table.md")
    assert r"| a\|b |" in text
    assert r"1 of 3 seeds failed: a\|b \*c\*; means over 2 seeds" in text


def test_latex_structure(full_study: Path) -> None:
    text = exported(full_study, "table.tex")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert re.findall(r"\\begin\{(\w+)\}", body) == ["table", "tabular", "tabular", "minipage"]
    assert re.findall(r"\\end\{(\w+)\}", body) == ["tabular", "tabular", "minipage", "table"]
    assert not re.search(r"(?<!\\)_", re.sub(r"\$[^$]*\$|\\label\{.*\}", "", body))
    assert not re.search(r"(?<!\\)%(?!$)", body, flags=re.MULTILINE)
    for panel, columns in zip(re.findall(r"\\toprule(.*?)\\bottomrule", body, re.DOTALL), (9, 8), strict=True):
        lines = [line for line in panel.strip().splitlines() if line != r"\midrule"]
        assert len(lines) == 7
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}
    assert r"mhc & \checkmark{} & \checkmark{} & \checkmark{} & 4 & 5" in body
    assert r"identity\_hc\textsuperscript{2} &  & (\checkmark{}) & \checkmark{}" in body
    assert r"$-$0.1010 $\pm$ 0.0092\textsuperscript{*}" in body


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
    ],
)
def test_numbers_are_rounded_by_their_uncertainty(mean: float, half: float, text: str) -> None:
    assert with_interval(mean, half) == text


def test_equal_notes_share_a_number() -> None:
    assert number_notes([["a"], [], ["b", "a"]]) == (["a", "b"], [[1], [], [2, 1]])


def test_terminal_table_is_narrower_than_120(full_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(full_study, "demo")
    print_table(full_study, "demo")
    lines = capsys.readouterr().out.splitlines()
    names = ("table.md", "table.tex", "table.csv", "loss_gap.svg", "provenance.json")
    assert lines[-5:] == [str(full_study / "demo" / name) for name in names]
    assert max(map(len, lines[:-5])) < 120
    mhc = next(line for line in lines if line.startswith(" mhc "))
    assert mhc.split()[1:4] == ["✓", "✓", "✓"]
    for text in ("2.409 ± 0.013", "−0.1010 ± 0.0092*", "−0.027", "1.00 / 1.50", "1.41×", "304"):
        assert f" {text} " in mhc


def test_terminal_table_on_a_given_console(study: Any) -> None:
    out = io.StringIO()
    study.row("identity", [2.5, 2.6, 2.4]).row("a[b]c", [2.3, 2.5, 2.2])
    print_table(study.save(), "demo", Console(file=out, width=119))
    assert "a[b]c" in out.getvalue()
    assert "table.md" not in out.getvalue()
