"""A copy of data without the rows that cannot be used and without repetitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from mlxops import files
from mlxops.data import file_rows, reading
from mlxops.errors import BadRequest, Refused
from mlxops.projects.project import Project


def target_of(project: Project, fix: str | None) -> Path | None:
    """Where the copy goes, None where none is asked for. Raises `Refused` for a place that is taken."""
    if fix is None:
        return None
    target = project.cwd / files.expanded(fix)
    if target.exists():
        raise Refused(f"{fix!r} is there already", hint="name a file or folder for `--fix` that is not there")
    return target


def repair(
    there: Sequence[tuple[reading.Use, Path, str]],
    target: Path,
    is_folder: bool,
    removed: Mapping[str, str],
    rows: Mapping[str, int],
) -> dict[str, int]:
    """Write the rows that stay, byte for byte, each file whole or not at all; how many went, by kind.

    `rows` counts the rows of each file that can be read.
    """
    gone: Counter[str] = Counter()
    try:
        with ExitStack() as stack:
            for use, file, shown in there:
                if shown in removed and not rows.get(shown):
                    raise BadRequest(f"{shown} cannot be repaired: it has no rows that can be read")
                place = target / f"{use}.jsonl" if is_folder else target
                place.parent.mkdir(parents=True, exist_ok=True)
                beside = stack.enter_context(files.whole(place))
                with beside.open("wb") as stream:
                    for origin, line in file_rows.raw_rows(file, shown):
                        if kind := removed.get(origin):
                            gone[kind] += 1
                        else:
                            stream.write(line)
    except OSError as error:
        raise BadRequest(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    return dict(gone)
