"""Wheels of what is installed here, made in a second: light packages whole, of the others a link to where they are."""

from __future__ import annotations

import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

from commands import ROOT
from packaging.requirements import Requirement

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LIGHT: set[str] = set(PROJECT["tool"]["mlxops"]["light"])
_BUILD = {"hatchling"}


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def closure(requirements: set[str]) -> dict[str, metadata.Distribution]:
    """Distributions by name, with all that they require here."""
    found: dict[tuple[str, str], metadata.Distribution] = {}
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        wanted, extra = waiting.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        for each in {"", *wanted.extras}:
            key = normal(wanted.name), each
            if key not in found:
                found[key] = metadata.distribution(wanted.name)
                waiting += [(Requirement(text), each) for text in found[key].requires or []]
    return {name: distribution for (name, _), distribution in found.items()}


def write_linked_wheels(folder: Path, *, has_light_whole: bool = True) -> None:
    """Fill a folder with wheels for all that mlxops needs and is built with; all are links but for the light ones."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = closure(LIGHT) if has_light_whole else {}
    for name, distribution in closure({*PROJECT["project"]["dependencies"], *_BUILD}).items():
        stem = f"{name.replace('-', '_')}-{distribution.version}"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            if name in whole:
                for file in distribution.files or []:
                    if not {"..", "__pycache__"} & set(file.parts) and ".dist-info" not in file.parts[0]:
                        wheel.write(str(distribution.locate_file(file)), file.as_posix())
            else:
                wheel.writestr(f"{stem}-link.pth", f"{distribution.locate_file('')}\n")
            wheel.writestr(f"{stem}.dist-info/METADATA", distribution.read_text("METADATA") or "")
            wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{stem}.dist-info/entry_points.txt", distribution.read_text("entry_points.txt") or "")
            wheel.writestr(f"{stem}.dist-info/RECORD", "")
