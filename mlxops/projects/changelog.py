"""What is new in a changelog, as the difference of two of its versions. All of it is pure."""

from __future__ import annotations

from collections.abc import Iterator


def news(before: str, after: str) -> tuple[str, ...]:
    """The entries that only the later text has, each with its heading in front, in their order.

    >>> news("## 1\\n### Added\\n- One.\\n", "## 1\\n### Added\\n- Two\\n  lines.\\n- One.\\n")
    ('Added: Two lines.',)
    """
    known = {text for _, text in _entries(before)}
    return tuple(f"{heading}: {text}" if heading else text for heading, text in _entries(after) if text not in known)


def _entries(changelog: str) -> Iterator[tuple[str, str]]:
    """Each entry with the heading above it; its lines are joined, so that another width is no news."""
    heading, entry = "", ""
    for line in [*changelog.splitlines(), ""]:
        if entry and line.startswith("  "):
            entry += f" {line.strip()}"
            continue
        if entry:
            yield heading, entry
        entry = line[2:].strip() if line.startswith("- ") else ""
        if line.startswith("### "):
            heading = line[4:].strip()
