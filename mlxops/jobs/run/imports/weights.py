"""The weights in a folder of `mlx_lm.lora`: which of them are of the training that its settings and log tell of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mlxops import files, layout
from mlxops.adapters import folders
from mlxops.adapters.folders import Contents, Found
from mlxops.adapters.mlx_lm_log import MOST
from mlxops.errors import BadRequest
from mlxops.jobs.run.imports import source as import_source
from mlxops.jobs.run.imports.log import Attempt, Story
from mlxops.jobs.run.imports.source import Source
from mlxops.layout import OFFERED, adapter_name
from mlxops.registry import ImportedCheckpoint

Progress = Callable[[str, int, int], None]
Hashes = Mapping[tuple[str, int, str], str]

_COPYING = 60  # seconds
_LAST_TIME = 253_402_300_799.0  # of the year 9999, after which no time can be written


@dataclass(kw_only=True)
class Weights:
    """The checkpoints of a folder, as rows; `offered` is the iteration of the file that programs load.

    `written` are the times of their files, `unread` the iterations of those that this user may not read.
    """

    rows: list[ImportedCheckpoint] = field(default_factory=list)
    offered: int | None = None
    written: list[float] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def reached(self) -> int:
        """The iteration that the folder's weights have come to."""
        return self.offered or max((row["iteration"] for row in self.rows), default=0)


def read(source: Source, iters: int | None, story: Story, known: Hashes, progress: Progress) -> Weights:
    """The numbered files of a folder, and the one that programs load by the iteration that it is of.

    `iters` is the target that the settings have, `known` what files were hashed to before by name, size and time.
    """
    if source.folder is None:
        return Weights()
    reader = _Reader(source.folder, iters, story.attempts[-1] if story.attempts else None)
    wanted = [*source.folder.of("weights"), *source.folder.of("offered")]
    total, done = max(sum(each.bytes for each in wanted), 1), 0
    for each in wanted:
        reader.take(each, known)
        done += each.bytes
        progress("hashing", done, total)
    return reader.end()


class _Reader:
    def __init__(self, contents: Contents, iters: int | None, last: Attempt | None) -> None:
        self._contents = contents
        self._iters = iters
        self._last = last
        self._found = Weights()
        self._numbered: dict[int, tuple[ImportedCheckpoint, Found]] = {}
        self._final: tuple[ImportedCheckpoint, Found] | None = None
        self._of_others: set[str] = set()

    def take(self, file: Found, known: Hashes) -> None:
        """Take a file for what it is by its name, unless it is of another training."""
        row = self._row(file, known)
        if row is None:
            return
        if reason := self._is_of_another(file):
            self._found.notes.append(f"{file.name} {reason}, so it is of another training and left out")
            self._of_others.add(row["adapter_sha256"])
        elif file.kind == "offered":
            self._final = (row, file) if self._final is None or file.name == OFFERED else self._final
        elif file.iteration not in self._numbered or file.name == adapter_name(file.iteration):
            self._numbered[file.iteration or 0] = (row, file)

    def end(self) -> Weights:
        """All that was taken, the file that programs load among it."""
        if self._final is not None:
            self._place(*self._final)
        for _, (row, file) in sorted(self._numbered.items()):
            self._found.rows.append(row)
            self._found.written.append(file.modified)
        return self._found

    def _row(self, file: Found, known: Hashes) -> ImportedCheckpoint | None:
        path = self._contents.folder / file.name
        problem = file.problem or folders.read_header(path).problem
        try:
            import_source.check_name(path)
        except BadRequest:
            self._found.notes.append(f"{file.name!a} is no UTF-8, so it is left out")
            return None
        if problem:
            self._found.notes.append(f"{file.name} {problem}, so it is left out")
            if problem == folders.UNREADABLE and file.iteration is not None:
                self._found.unread.append(file.iteration)
            return None
        time = in_words(file.modified)
        with import_source.readable():
            sha256 = known.get((file.name, file.bytes, time)) or files.sha256(path)
        return {
            "iteration": file.iteration or 0,
            "adapter_file": file.name,
            "bytes": file.bytes,
            "adapter_sha256": sha256,
            "created_at": time,
        }

    def _is_of_another(self, file: Found) -> str | None:
        """Why a file is of an earlier training in this folder, which mlx-lm lets stand and writes over bit by bit."""
        if self._is_older(file):
            return f"is older than {layout.SETTINGS}"
        if file.iteration is None:
            return None
        if self._iters is not None and file.iteration > self._iters:
            return f"is past the {self._iters:,} iterations of this training"
        if self._last is not None and file.iteration > self._last.reached:
            return f"is past iteration {self._last.reached:,}, where the log ends"
        return None

    def _is_older(self, file: Found) -> bool:
        """Whether weights were there before the settings, which mlx-lm writes first.

        Where all was written within a minute it may be a copy, whose times tell the order of copying.
        """
        settings = self._contents.named(layout.SETTINGS)
        if settings is None or file.modified >= settings.modified:
            return False
        times = [each.modified for each in self._contents.of("weights", "offered", "settings")]
        return max(times) - min(times) > _COPYING

    def _place(self, row: ImportedCheckpoint, file: Found) -> None:
        """Say which iteration the file that programs load is of, by equal bytes, else by the settings."""
        sha256, end = row["adapter_sha256"], self._end()
        same = [each for each, (other, _) in self._numbered.items() if other["adapter_sha256"] == sha256]
        if same:
            self._found.offered = max(same)
        elif sha256 in self._of_others:
            self._found.notes.append(f"{file.name} is what another training left, so it is left out")
        elif end is not None:
            self._found.offered = end
            self._numbered[end] = ({**row, "iteration": end}, file)
        else:
            self._found.notes.append(f"nothing tells which iteration {file.name} is of, so it is left out")

    def _end(self) -> int | None:
        """The last iteration that the settings have, None where the log says that it was not reached."""
        last = self._last
        is_reached = last is None or last.reached >= (self._iters or 0)
        return self._iters if is_reached else None


def whole(value: object) -> int | None:
    """A number of iterations as settings have it, None for what is none or past belief."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST else None


def in_words(seconds: float) -> str:
    """A time since 1970 as the registry writes it."""
    within = min(max(seconds, 0.0), _LAST_TIME)
    return datetime.fromtimestamp(within, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
