"""How matplotlib draws, and making a drawing part of a page: its ids its own, its colours and letters the page's."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

INK, SOFT, GRID = "#1c2024", "#5f6770", "#d5d9de"

# Okabe and Ito's colours (Color Universal Design, 2008), which colour-blind people tell apart; their yellow is too
# light for a line on white and gave way to a darker one.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#3d9bd6", "#4d4d4d", "#7f3c8d")
_SERIES_ON_DARK = ("#5ab4f2", "#ff9147", "#33d1a0", "#f0a3cd", "#dfc04b", "#9fd6ff", "#c4c4c4", "#cf9be6")

LIGHT = {"ink": INK, "soft": SOFT, "grid": GRID, **{f"series-{n}": each for n, each in enumerate(SERIES)}}
"""The colours by the names that they have in the page's style."""

DARK = {
    **{"ink": "#e8eaed", "soft": "#a4abb3", "grid": "#3a4047"},
    **{f"series-{n}": each for n, each in enumerate(_SERIES_ON_DARK)},
}
"""The same on a dark page."""

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.unicode_minus": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 11,
    "path.simplify": False,  # what lies close together may still be a spike
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": SOFT,
    "xtick.labelsize": 10,
    "ytick.color": SOFT,
    "ytick.labelsize": 10,
}
"""How matplotlib draws: every setting that is not its own default."""

_VARIABLES = {colour: f"var(--{name}, {colour})" for name, colour in LIGHT.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_FAMILY = re.compile(
    r"(font-family:|font:[^;]*?[\d.]+px)[^;]*"
)  # matplotlib writes the one, its elder versions the other
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([^)\"]+)")


def themed(svg: str, name: str, alt: str) -> str:
    """The SVG of a figure as an element of an HTML page, described by `alt`.

    All ids begin with `name`, so that no two drawings of a page share one. The colours follow the page's style.
    """
    root = ElementTree.fromstring(svg)
    ids = _references(root)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        _dress(element, name, ids)
    for parent in list(root.iter()):
        # a style inside a drawing would hold for the whole page
        for child in [each for each in parent if each.tag in ("metadata", "style")]:
            parent.remove(child)
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-label": alt, "class": "chart"}
    return ElementTree.tostring(root, encoding="unicode")


def _references(root: ElementTree.Element) -> set[str]:
    """The ids that something in the drawing refers to; the others only name what matplotlib drew."""
    found = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            if key.endswith("href") or "url(" in value:
                found |= set(_REFERENCE.findall(value))
    return found


def _dress(element: ElementTree.Element, name: str, ids: set[str]) -> None:
    for key, value in list(element.attrib.items()):
        if key == "id":
            if value in ids:
                element.set(key, f"{name}-{value}")
            else:
                del element.attrib[key]
        elif key == "href" or "url(#" in value:
            element.set(key, _REFERENCE.sub(rf"#{name}-\1", value))
        elif key == "style":
            shown = _COLOUR.sub(lambda found: _VARIABLES.get(found[0], found[0]), value)
            element.set(key, _FAMILY.sub(r"\1 system-ui, sans-serif", shown))
        elif key == "d":
            # a hundredth of a pixel is more than a screen or a printer shows, and half of the text
            element.set(key, _NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value))
