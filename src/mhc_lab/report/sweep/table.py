"""A small table with words beneath it, in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mhc_lab.report import latex

_RULES = {"l": "---", "c": ":-:", "r": "--:"}
# A table wider than the text is shrunk to it, a narrower one is left alone.
_FIT = r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi\par"


@dataclass(frozen=True)
class Table:
    """`heads` of the columns, their alignment (l, c, r: a letter a column), `rows` of texts, `words` beneath; the row
    numbered `bold` is set bold."""

    title: str
    heads: tuple[str, ...]
    align: str
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    bold: int | None = None

    def __post_init__(self) -> None:
        assert len(self.heads) == len(self.align) and all(len(row) == len(self.heads) for row in self.rows)

    def markdown(self, level: int = 1) -> str:
        """Under a heading of `level` (0: none)."""
        lines = [f"{'#' * level} {escape(self.title)}", ""] if level else []
        if self.rows:
            lines += [
                _line([escape(head) for head in self.heads]),
                "| " + " | ".join(_RULES[side] for side in self.align) + " |",
            ]
            for number, row in enumerate(self.rows):
                cells = [escape(cell) for cell in row]
                lines.append(_line([f"**{cell}**" if cell and number == self.bold else cell for cell in cells]))
            lines.append("")
        lines += [f"- {escape(word)}" for word in self.words]
        return "\n".join(lines).rstrip("\n") + "\n"

    def latex(self, name: str) -> str:
        r"""A `table` environment to \input, with the label tab:`name`."""
        rows = []
        for number, row in enumerate(self.rows):
            cells = [latex.escape(cell) for cell in row]
            rows.append(" & ".join(rf"\textbf{{{c}}}" if c and number == self.bold else c for c in cells) + r" \\")
        lines = [
            r"% Needs \usepackage{booktabs,amssymb,graphicx}.",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex.escape(self.title)}}}",
            rf"\label{{tab:{latex.label(name)}}}",
            r"\smallskip",
            r"\setbox0=\hbox{\small\setlength{\tabcolsep}{4pt}%",
            rf"\begin{{tabular}}{{@{{}}{self.align}@{{}}}}",
            r"\toprule",
            " & ".join(latex.escape(head) for head in self.heads) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}%",
            _FIT,
            r"\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *(rf"{latex.escape(word)}\par" for word in self.words),
            r"\end{minipage}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it reads."""
    for character in ("\\", "|", "*", "<", "`", "[", "]"):
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
