"""The report page: one HTML file with a study's table, figures, configuration and provenance."""

from __future__ import annotations

from mhc_lab.report.page.render import render

__all__ = ["render"]
