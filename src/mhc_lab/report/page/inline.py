"""A figure's SVG as a part of the page: ids of its own, the page's colours, as wide as there is room."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.colors import to_rgb

from mhc_lab.report.figures.colour import luminance
from mhc_lab.report.figures.style import GRID, INK, MUTED, PAPER

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)"}
_HEX = re.compile(r"#[0-9a-f]{6}\b", re.IGNORECASE)
DARK = "#16181b"  # --paper of page.css in the dark
CONTRAST = 4.5  # of text on paper, WCAG 2.2, 1.4.3
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_DROPPED = (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")  # the style would hold for the whole page; page.css has it


def inline(svg: str, name: str, title: str, colours: Collection[str] = ()) -> Markup:
    """The SVG of a figure, ready to stand in HTML.

    Every id gets the prefix `name`, and what refers to it too: figures of one page share matplotlib's ids. The four
    colours of `style` that are not data become the page's, so that they follow light and dark; `colours` are those of
    data that are lightened in the dark as far as they need to be seen there. Width and height give way to `--width`,
    that of the figure in points, which the page's style sheet scales.
    """
    assert _NAME.fullmatch(name), f"a figure's name becomes ids: {name!r}"
    swapped = {colour: f"light-dark({colour}, {_lightened(colour)})" for colour in map(str.lower, colours)} | _COLOURS
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in [child for child in parent if child.tag in _DROPPED]:
            parent.remove(child)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _attribute(key, value, name, swapped))
    width = root.attrib["viewBox"].split()[2]
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.attrib |= {"role": "img", "aria-label": title, "style": f"--width: {width}"}
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _attribute(key: str, value: str, name: str, swapped: dict[str, str]) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", f"{{{_XLINK}}}href"):
        return f"#{name}-{value[1:]}" if value.startswith("#") else value
    value = value.replace("url(#", f"url(#{name}-")
    return _HEX.sub(lambda found: swapped.get(found.group().lower(), found.group()), value)


@cache
def _lightened(colour: str) -> str:
    """The colour mixed with as little white as gives it CONTRAST on DARK."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    for percent in range(101):
        mixed = [round(c + (255 - c) * percent / 100) for c in channels]
        if (luminance([c / 255 for c in mixed]) + 0.05) / (luminance(to_rgb(DARK)) + 0.05) >= CONTRAST:
            break
    return "#" + "".join(f"{c:02x}" for c in mixed)
