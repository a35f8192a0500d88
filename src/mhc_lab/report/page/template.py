"""A page that needs nothing else: its template, with the style sheet and the script inside."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def fill(template: str, **values: Any) -> str:
    """The HTML of a template of this package; text is escaped, `css` and `js` are at hand."""
    environment = Environment(
        loader=PackageLoader("mhc_lab.report", "page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(css=_asset("page.css"), js=_asset("page.js"), **values)


def _asset(name: str) -> Markup:
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
