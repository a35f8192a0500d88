"""The rows that mix their streams, and what figures of their H_res say where one has no probe."""

from __future__ import annotations

from collections.abc import Sequence

from mhc_lab.report.figures.plot import Absent, Material
from mhc_lab.report.frame import Study
from mhc_lab.units import listed


def mixing_rows(study: Study) -> list[str]:
    """Those with an H_res that is not fixed and two or more streams."""
    return [row["row"] for row in study.rows if row["h_res"] != "fixed" and row["streams"] > 1]


def absent(name: str, mixing: Sequence[str]) -> Absent:
    """Where nothing of the rows that mix can be drawn."""
    if mixing:
        return Absent(name, f"no finished run of a row that mixes its streams ({listed(mixing)}) has a probe")
    return Absent(name, "no row mixes its streams; add one with H_res on and two or more streams")


def unprobed_text(material: Material, mixing: Sequence[str]) -> str:
    """What a caption says of the rows that mix but finished no run with a probe."""
    missing = [row for row in mixing if not material.probes.get(row)]
    return f" Without a probe: {listed(missing)}." if missing else ""
