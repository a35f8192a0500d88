"""A table in GitHub's Markdown."""

from __future__ import annotations

from mhc_lab.report.layout import Layout, number_notes

SHORT = 32  # a note up to this long stands in its row; longer ones are numbered under the table
_RULES = {"l": "---", "c": ":-:", "r": "--:"}


def render(layout: Layout) -> str:
    """Title, table, numbered notes, legend. Short notes stand in the row, long ones under the table."""
    long, numbers = number_notes([[note for note in row if len(note) > SHORT] for row in layout.notes])
    lines = [
        f"# {_escape(layout.title)}",
        "",
        _escape(" ".join(layout.verdict)),
        "",
        *(f"> **Warning:** {_escape(line)}.\n" for line in layout.warnings),
        _line([*(column.head for column in layout.columns), "note"]),
        _line([*(_RULES[column.align] for column in layout.columns), "---"]),
    ]
    for row, notes, row_numbers in zip(layout.rows, layout.notes, numbers, strict=True):
        note = ", ".join([*(n for n in notes if len(n) <= SHORT), *(f"({i})" for i in row_numbers)])
        cells = {column.key: _escape(row[column.key]) for column in layout.columns}
        if row["row"] in layout.best:
            cells["loss_gap"] = f"**{cells['loss_gap']}**"
        lines.append(_line([*cells.values(), _escape(note)]))
    if long:
        lines += ["", "Notes", "", *(f"{i}. {_escape(note)}" for i, note in enumerate(long, start=1))]
    lines += ["", *(f"- {_escape(line)}" for line in [*layout.legend, *layout.details])]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    for character in ("\\", "|", "*", "<"):
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
