"""Reports on runs of known figures as tests read them: what a browser makes of a page, and its charts."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from html.parser import HTMLParser

from known_runs import settings

from mlxops.config import ReportConfig
from mlxops.jobs.run import report as material
from mlxops.jobs.run.report import ReportContent
from mlxops.ui.report import page

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
LINE = [(step, 4.0 - step / 50) for step in range(2, 101, 2)]
VALIDATIONS = [(0, 4.1, 0.1), (50, 3.1, 0.1), (100, 2.2, 0.1)]
AXES = ("iterations", "tokens", "time")
NO_CONTENT = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in NO_CONTENT:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]

    def charts(self) -> list[str]:
        return [attributes["aria-label"] or "" for tag, attributes in self.elements if tag == "svg"]


def gathered(*runs: str) -> ReportContent:
    """What a report on these runs of the current folder tells."""
    return material.gather(settings(), ReportConfig(runs=list(runs), yes=True))


def drawn(*runs: str, png: bool = False, by: tuple[str, ...] = ("iterations",)) -> dict[str, bytes]:
    """The files of a report; several runs are drawn by the given axes alone, as each chart takes its time."""
    found = gathered(*runs)
    comparisons = found.comparisons and {axis: found.comparisons[axis] for axis in by}
    return page.draw(found.run, comparisons, NOW, png=png)


def shown(*runs: str, by: tuple[str, ...] = ("iterations",)) -> Page:
    """The page of a report."""
    return Page(drawn(*runs, by=by)["html"].decode())


def size_of(picture: bytes) -> tuple[int, int]:
    """The width and the height of a PNG."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    return width, height
