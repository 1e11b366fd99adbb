"""The words of STYLE §9: what it replaces stands nowhere in the sources, the SQL, the templates and the docs."""

from __future__ import annotations

import re

from commands import ROOT

REPLACED = [
    r"rows a batch", r"tokens a second", r"nats a token", r"go on", r"goes on", r"going on", r"gone on", r"went on",
    r"beg[aiu]ns? anew", r"begun anew", r"for mlx-lm's sake", r"a larger --\w+ goes", r"once more leaves at once",
    r"a new run, no run", r"no run of these settings", r"are [\d.]+ times the [\d,]+ batches", r"would go\b",
    r"chance alone could explain", r"above lowest", r"this command refuses", r"nobody is (?:here|there) to",
    r"without a real improvement", r"folders that are nobody's",
]  # fmt: skip
FOLDERS = ["mlxops", "db", "docs", "templates", "benchmarks"]
FILES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "install.sh", "tasks.py")),
    *(
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".sql", ".md", ".html", ".css", ".yaml", ".tmpl", ".sh")
    ),
]


def test_what_the_style_replaces_stands_nowhere() -> None:
    # in small letters, since a pattern that tells none apart takes twice as long for all of the sources
    pattern = re.compile("|".join(rf"\b{words}\b" if words[-1].isalnum() else words for words in REPLACED))
    texts = {file: file.read_text(encoding="utf-8").lower() for file in FILES}
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file, text in texts.items()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]

    assert found == []
    assert [words for words in REPLACED if words != words.lower()] == []
