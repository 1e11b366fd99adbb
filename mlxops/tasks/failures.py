"""What went wrong, in words and as an exit code: the only place where an error becomes text.

A `MlxopsError` is one sentence and a hint. Anything else is a bug: one line says so, and the traceback is kept.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from invoke.exceptions import Exit

import mlxops
from mlxops import system
from mlxops.errors import BadRequest, Failed, InvalidData, MlxopsError, SettingsDiffer
from mlxops.hints import for_program, for_terminal, program
from mlxops.projects import entering

# What a global installation leaves out, by the names of the modules.
_HEAVY = {
    *("gguf", "jinja2", "mlx", "mlx_lm", "numpy", "prompt_toolkit", "rensa", "sacrebleu", "safetensors"),
    *("sentencepiece", "tokenizers", "transformers"),
}


def exit_for(error: MlxopsError, task: str | None = None) -> Exit:
    """The exit that says an error and carries its code; `task` is the name of what was asked for."""
    return Exit(for_terminal(in_words(error, task)), code=error.exit_code)


def in_words(error: MlxopsError, task: str | None = None) -> str:
    """The error as lines: its sentence, what it lists, and the hint with the command of the program in use.

    A wrong request without a hint of its own gets that of the `task`'s page.
    """
    lines = [error.message]
    if isinstance(error, InvalidData):
        lines += [f"  {problem}" for problem in error.problems[: error.shown]]
        more = len(error.problems) - error.shown
        if more > 0:
            lines.append(f"  … and {more:,} more")
    if isinstance(error, SettingsDiffer):
        lines += [f"  {setting}: was {there}, now {asked}" for setting, there, asked in error.differences]
    if error.hint is None and task and isinstance(error, BadRequest) and not isinstance(error, InvalidData):
        lines.append(f"hint: `{program()} {task} --help` explains its options")
    if error.hint:
        lines.append(f"hint: {for_program(error.hint)}")
    return "\n".join(lines)


def left_out(error: BaseException, root: Path) -> MlxopsError | None:
    """Why a task cannot work where only the light packages are installed, and what to type; else None."""
    if entering.has_mlx():
        return None
    # what loads a tokenizer or a model has made it an error of its own
    raised: BaseException | None = error
    while raised is not None and not (isinstance(raised, ModuleNotFoundError) and _top(raised) in _HEAVY):
        raised = raised.__cause__
    if raised is None:
        return None
    missing = _top(raised)
    name = program()
    if (root / "tasks.py").exists():
        hint = f"`{name} install-deps` makes the project's own environment, which has it"
    else:
        hint = (
            "`mlx-toolkit init NAME` makes a project, and `mlx-toolkit install-deps` in it an environment that has it"
        )
    return Failed(f"this needs the package {missing}, which the environment of this {name} does without", hint=hint)


def _top(error: BaseException) -> str:
    return (getattr(error, "name", None) or "").partition(".")[0]


def exit_for_a_bug(error: BaseException, folders: Iterable[Path]) -> Exit:
    """The exit for what nobody foresaw: one line; the traceback goes into `.mlxops/` of the first folder that takes it.

    MLXOPS_DEBUG=1 shows the traceback at once.
    """
    import traceback

    trace = "".join(traceback.format_exception(error))
    if os.environ.get("MLXOPS_DEBUG", "0") not in ("", "0"):
        print(trace, end="", file=sys.stderr)
    reason = next(iter(traceback.format_exception_only(error)[-1].strip().splitlines()), type(error).__name__)
    file = _keep(trace, folders)
    return Exit(for_terminal(f"this is a bug in mlxops: {reason}\nhint: the traceback is in {file}"), code=1)


def reader_has_gone(error: BaseException) -> bool:
    """Whether whoever reads our stdout has enough, as `head` has; what is left is then written to nowhere."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)  # Rich leaves so, having done the rest
    from mlxops.system import terminal

    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # stdout is no file, as under a test
        return False
    if not terminal.reader_has_gone(descriptor):
        return False
    _write_to_nowhere()
    return True


def output_failed(error: BaseException) -> str | None:
    """Why our stdout takes no more, as on a full disk; what is left is then written to nowhere."""
    reasons = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
    if not isinstance(error, OSError) or error.errno not in reasons or error.filename is not None:
        return None
    _write_to_nowhere()
    return f"the output cannot be written: {error.strerror}"


def device_failed(error: BaseException) -> Failed | None:
    """What a person is told where memory, or the time of a GPU, was not enough for what was computed; else None."""
    from mlxops import foreign
    from mlxops.system import gpu

    lacks = gpu.trouble(error)
    if lacks is None:
        return None
    hint = "close other programs, or take a smaller or quantized model or fewer rows at a time"
    if lacks == "time":
        hint = "give it again with fewer or shorter rows at a time, and with less at work on the GPU"
    return Failed(f"{gpu.SENTENCES[lacks]}: {foreign.in_words(error)}", hint=hint)


def open_streams() -> None:
    """Give a program that was started without stdout or stderr (`>&-`) ones that go to nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open as long as the program is


def _write_to_nowhere() -> None:
    with suppress(OSError, ValueError):  # under a test it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _keep(trace: str, folders: Iterable[Path]) -> str:
    import tempfile

    now = datetime.now(UTC)
    head = f"mlxops {mlxops.__version__}, Python {sys.version.split()[0]}, {system.NAME}\n{now.isoformat()}\n"
    for folder in [*folders, Path(tempfile.gettempdir())]:
        file = folder / ".mlxops" / f"crash-{now:%Y%m%dT%H%M%S.%fZ}.txt"
        try:
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{head}{sys.argv!r}\n\n{trace}", encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return str(file)
    return "no file: none could be written; MLXOPS_DEBUG=1 shows it"
