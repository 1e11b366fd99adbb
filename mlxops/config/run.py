"""Options of the tasks on runs."""

from __future__ import annotations

from typing import Literal

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings


@settings
class RunsConfig:
    """Settings of the list of runs."""

    status: Literal["created", "running", "interrupted", "completed", "failed", "lost"] | None = option(
        None, "only runs of this status"
    )
    model: str | None = option(None, "only runs of this model")
    tag: str | None = option(None, "only runs with this tag")
    text: str | None = option(None, "only runs with this in their name, note, model or data")
    since: str | None = option(None, "only runs begun since: a date, a time, or an age as 3d, 12h, 30m")
    until: str | None = option(None, "only runs begun until then; a date counts to its end")
    sort: str = option("-created_at", "column of run_summary to sort by, with a - before it the largest first")
    columns: list[str] = option([], "columns of run_summary to show; those that fit unless given")
    limit: int = option(50, "runs shown", at_least=1, at_most=HUGE)
    json: bool = option(False, "as JSON")


@settings
class RunConfig:
    """Settings of the page of one run."""

    name: str = option(None, "the run: its name or a part of it, its number, or latest", positional=True)
    json: bool = option(False, "as JSON")


@settings
class CompareConfig:
    """Settings of a comparison of runs."""

    runs: list[str] = option(
        None, "the runs, with commas between them: names or parts of them, numbers, latest", positional=True
    )
    by: Literal["iterations", "tokens", "time"] = option("iterations", "what the curves are laid over by")
    all: bool = option(False, "also the settings that are equal")
    json: bool = option(False, "as JSON")


@settings
class TagConfig:
    """Settings of the tags of runs."""

    name: str = option(
        None, "the run, or several with commas between them: name or a part of it, number, latest", positional=True
    )
    add: list[str] = option([], "tags to add")
    remove: list[str] = option([], "tags to take away")
    json: bool = option(False, "as JSON")


@settings
class NoteConfig:
    """Settings of the note of a run."""

    name: str = option(None, "the run: its name or a part of it, its number, or latest", positional=True)
    text: str | None = option(None, "the new note, or - to read it from standard input; shown unless given")
    remove: bool = option(False, "take the note away")
    json: bool = option(False, "as JSON")


@settings
class RenameConfig:
    """Settings of the new name of a run."""

    name: str = option(None, "the run: its name or a part of it, its number, or latest", positional=True)
    to: str = option(None, "the new name", positional=True)
    json: bool = option(False, "as JSON")


@settings
class DeleteConfig:
    """Settings of the removal of runs."""

    runs: list[str] = option(
        None, "the runs, with commas between them: names or parts of them, numbers, latest", positional=True
    )
    keep_files: bool = option(False, "remove the rows and leave the folders")
    yes: bool = option(False, "do not ask")
    json: bool = option(False, "as JSON")


@settings
class ExportConfig:
    """Settings of an export of the registry."""

    run: list[str] = option([], "the runs: names or parts of them, numbers, latest; all unless given")
    what: Literal["metrics", "runs", "all"] = option("metrics", "points, run_summary, or every table")
    format: Literal["csv", "json", "jsonl", "parquet"] | None = option(
        None, "how the rows are written; as the name of the output ends, else csv, unless given"
    )
    output: str | None = option(None, "file, or folder for every table; stdout unless given", path=True)
    yes: bool = option(False, "replace what is there")
    json: bool = option(False, "what was written, as JSON")


@settings
class ReportConfig:
    """Settings of a report on runs."""

    runs: list[str] = option(
        None, "the runs, with commas between them: names or parts of them, numbers, latest", positional=True
    )
    output: str | None = option(None, "HTML file; RUN.html unless given", path=True)
    png: str | None = option(None, "the loss curve as a PNG file as well", path=True)
    yes: bool = option(False, "replace what is there")
    json: bool = option(False, "what was written, as JSON")


@settings
class ImportRunConfig:
    """Settings of the import of what another tool trained."""

    source: str = option(None, "adapter folder of mlx_lm.lora, or a log of it", positional=True, path=True)
    name: str | None = option(None, "name of the run; the folder's or file's unless given")
    json: bool = option(False, "as JSON")


@settings
class SqlConfig:
    """Settings of a question to the registry."""

    text: str = option(None, "SQL that reads, @NAME for a saved query, .queries or .schema", positional=True)
    param: list[str] = option([], "a parameter of the query, as key=value; repeat for more", commas=False)
    format: Literal["table", "csv", "json", "jsonl", "md"] | None = option(
        None, "how the rows are written; a table in a terminal and csv in a pipe unless given"
    )
    json: bool = option(False, "the same as --format json", instead_of="format")
    timeout: float = option(30.0, "seconds after which the query is given up", above=0, at_most=1e6)
