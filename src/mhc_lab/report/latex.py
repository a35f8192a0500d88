"""A table in LaTeX: a `table` environment to \\input as it is, with booktabs rules."""

from __future__ import annotations

import re
import unicodedata

from mhc_lab.report.layout import Column, Layout, number_notes

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "*": r"\textsuperscript{*}",
    "✓": r"\checkmark{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "‖": r"$\|$",
    "∇": r"$\nabla$",
}
_SYMBOLS = {rf"H\_{name}": rf"$\mathcal{{H}}^{{\mathrm{{{name}}}}}$" for name in ("res", "pre", "post")}
_HEAD = r"""% Needs \usepackage{booktabs,amssymb,graphicx}. Use: \input{table.tex}
\begin{table}[t]
\centering
"""
# A panel wider than the text is shrunk to it, a narrower one is left alone.
_FIT = r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi\par"
_ONE_PANEL = 6  # columns that are side by side within the width of a text
_FIRST_PANEL = (
    "row",
    "baseline",
    "h_res",
    "h_pre",
    "h_post",
    "streams",
    "seeds",
    "val_loss",
    "loss_gap",
    "bca",
    "p_holm",
    "p_sign_flip",
    "claim",
    "paper_loss_gap",
)


def render(layout: Layout) -> str:
    """Caption, table, notes (superscripts at the row's name) and legend, within one `table` environment.

    The columns stand in two panels, losses above stability and cost: side by side they would not be readable
    within the width of a page.
    """
    distinct, numbers = number_notes(layout.notes)
    names = [
        escape(row["row"]) + (rf"\textsuperscript{{{','.join(map(str, marks))}}}" if marks else "")
        for row, marks in zip(layout.rows, numbers, strict=True)
    ]
    panels = [_panel(layout, columns, names) for columns in _panels(layout.columns)]
    lines = [
        rf"\caption{{{escape(layout.title)}}}",
        rf"\label{{tab:{label(layout.study)}}}",
        r"\smallskip",
        *(line for place, panel in enumerate(panels) for line in ([r"\medskip"] if place else []) + panel),
        r"\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
        *(rf"\textsuperscript{{{i}}}~{escape(note)}.\par" for i, note in enumerate(distinct, start=1)),
        r"\smallskip",
        *(rf"\textbf{{Warning:}} {escape(line)}.\par" for line in layout.warnings),
        *(escape(line) for line in [*layout.legend, *layout.details]),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _panels(columns: list[Column]) -> list[list[Column]]:
    """Few columns in one panel, many in two; each begins with the rows' names."""
    if len(columns) <= _ONE_PANEL:
        return [columns]
    losses = [column for column in columns if column.key in _FIRST_PANEL]
    return [losses, [column for column in columns if column.key == "row" or column not in losses]]


def _panel(layout: Layout, columns: list[Column], names: list[str]) -> list[str]:
    rows = [
        " & ".join([name, *(_cell(layout, row, column) for column in columns[1:])]) + r" \\"
        for name, row in zip(names, layout.rows, strict=True)
    ]
    return [
        r"\setbox0=\hbox{\small\setlength{\tabcolsep}{4pt}%",
        rf"\begin{{tabular}}{{@{{}}{''.join(column.align for column in columns)}@{{}}}}",
        r"\toprule",
        " & ".join(column.latex for column in columns) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}%",
        _FIT,
    ]


def _cell(layout: Layout, row: dict[str, str], column: Column) -> str:
    text = escape(row[column.key])
    return rf"\textbf{{{text}}}" if column.key == "loss_gap" and row["row"] in layout.best else text


def escape(text: str) -> str:
    """Text that pdflatex sets as it reads: special characters escaped, H_res and its like as the paper's symbols."""
    escaped = "".join(_ESCAPES.get(character) or _plain(character) for character in " ".join(text.split()))
    for name, symbol in _SYMBOLS.items():
        escaped = escaped.replace(name, symbol)
    return escaped


def label(name: str) -> str:
    """A name as LaTeX takes it in a \\label: letters, digits and a few signs; all else is a dash."""
    return re.sub(r"[^A-Za-z0-9_.:+-]", "-", name)


def _plain(character: str) -> str:
    """The character, or for one that pdflatex has no glyph for its nearest ASCII, `?` at worst."""
    if ord(character) < 0x80:
        return character
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
