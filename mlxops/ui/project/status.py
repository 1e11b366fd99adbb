"""The screen of `status`: once, or again and again in a terminal. It reads nothing: its source does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.text import Text

from mlxops import words
from mlxops.ui.terminal import lines, live_screen
from mlxops.ui.terminal.console import is_unicode
from mlxops.ui.terminal.tables import shortened

if TYPE_CHECKING:
    from mlxops.jobs.model.listing import ModelEntry
    from mlxops.jobs.project.status import RunsNow, Status
    from mlxops.projects.accelerator import Accelerator
    from mlxops.projects.packages import Installed
    from mlxops.registry import RunSummaryView

_LABEL = 13  # columns of the words at the left
_TWO_COLUMNS = 140  # columns of a terminal from where on machine and models stand side by side
_GAP = 4
_BAR = 24
_MODELS, _RUNS, _RECENT = 8, 6, 8  # lines of each list where there is room
_SHOWN_VERSIONS = ("mlxops", "mlx", "mlx-lm", "transformers")
_NEARLY_FULL = 0.9


class Source(live_screen.Source, Protocol):
    """Where the state comes from."""

    def look(self) -> Status:
        """The state now."""


def once(source: Source, console: Console, now: datetime) -> None:
    """One screen, printed as long as it is."""
    console.print(render(source.look(), width=console.width, height=None, now=now, unicode=is_unicode(console)))


def live(
    source: Source,
    console: Console,
    *,
    refresh: float,
    now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
) -> None:
    """The screen until `q` or Ctrl-C; not a terminal: once. However it ends, the terminal is as it was."""
    if not console.is_interactive:
        once(source, console, now())
        return
    with live_screen.opened(source, console) as opened:
        status: Status | None = None

        def show(_: float, __: str, is_due: bool) -> None:
            nonlocal status
            if status is None or is_due:
                status = opened.ask(source.look)
            size = console.size
            frame = render(
                status, width=size.width, height=size.height, now=now(), unicode=is_unicode(console), keys=True
            )
            opened.screen.update(frame, refresh=True)

        opened.watch(refresh, show)


def render(
    status: Status, *, width: int, height: int | None, now: datetime, unicode: bool = True, keys: bool = False
) -> Group:
    """The screen, of at most `height` lines; the lists of models and of runs give way first."""
    foot = [lines.line("q quit", "dim").append(f"   {now:%H:%M:%S}")] if keys else []
    room = None if height is None else height - len(foot)
    # the largest shares of the lists that fit
    for models, runs, recent, is_airy in (
        (_MODELS, _RUNS, _RECENT, True),
        (_MODELS, _RUNS, _RECENT, False),
        (4, 4, 4, False),
        (2, 3, 2, False),
        (1, 2, 1, False),
        (0, 1, 0, False),
    ):
        drawn = _screen(status, width, now, unicode, models=models, runs=runs, recent=recent, is_airy=is_airy)
        if room is None or len(drawn) <= room:
            break
    if room is not None:
        drawn = drawn[: max(room, 0)]
        drawn += [lines.line()] * (room - len(drawn))
    return Group(*drawn, *foot)


def _screen(
    status: Status, width: int, now: datetime, unicode: bool, *, models: int, runs: int, recent: int, is_airy: bool
) -> list[Text]:
    name = status.project.rstrip("/").rpartition("/")[2] or status.project
    title = lines.line(words.visible(name), "bold").append(f"   {words.visible(status.project)}", "dim")
    air = [lines.line()] if is_airy else []
    two = width >= _TWO_COLUMNS
    half = (width - _GAP) // 2 if two else width
    machine, environment = _machine(status, half, unicode), _environment(status.environment, half)
    listed = _models(status.models, half, models)
    if two:
        top = _beside(machine, [*environment, *air, *listed], half)
    else:
        top = [*machine, *air, *environment, *air, *listed]
    return [title, *air, *top, *air, *_runs(status.runs, width, now, unicode, runs, recent)]


def _machine(status: Status, width: int, unicode: bool) -> list[Text]:
    facts, load = status.machine, status.load
    cores = words.plural(facts.cores, "core")
    if facts.available_cores != facts.cores:
        cores = f"{facts.available_cores} of {cores}"
    drawn = [_row("machine", f"{facts.processor}, {cores}, {facts.system}")]
    averages = " ".join(f"{each:.1f}" for each in load.load_average)
    drawn.append(_measure("cpu", load.cpu_percent / 100, f"load {averages}", width, unicode, warns=False))
    drawn.append(_share("memory", load.memory_used, load.memory, width, unicode))
    drawn.append(
        _share("swap", load.swap_used, load.swap, width, unicode) if load.swap else _row("swap", "none", "dim")
    )
    used = load.disk - load.disk_free
    said = f"{words.size(load.disk_free)} free of {words.size(load.disk)}"
    drawn.append(_measure("disk", used / max(load.disk, 1), said, width, unicode))
    for each in status.accelerators:
        drawn += _accelerator(each, width, unicode)
    return drawn if status.accelerators else [*drawn, _row("gpu", "none", "dim")]


def _accelerator(gpu: Accelerator, width: int, unicode: bool) -> list[Text]:
    said = [gpu.name]
    if gpu.kind == "apple":
        said.append("shares the memory" if gpu.limit is None else f"may hold {words.size(gpu.limit)}")
    if gpu.driver is not None:
        said.append(f"driver {gpu.driver}")
    drawn = [_row("gpu", ", ".join(said))]
    if gpu.memory and gpu.memory_used is not None:
        drawn.append(_share("", gpu.memory_used, gpu.memory, width, unicode))
        if gpu.busy_percent is not None:
            drawn[-1].append(f", {gpu.busy_percent:.0f} % busy")
    return drawn


def _environment(found: Installed, width: int) -> list[Text]:
    where = ".venv" if found.is_own else found.folder
    versions = [f"{name} {found.versions[name]}" for name in _SHOWN_VERSIONS if name in found.versions]
    text = ", ".join([where, f"Python {found.python or words.NOTHING}", *versions])
    drawn = [_row("environment" if number == 0 else "", part) for number, part in enumerate(_folded(text, width))]
    if not found.backends:
        return [*drawn, _row("MLX", "not installed", "yellow").append("   `inv install-deps`", "dim")]
    said = _row("MLX", found.backends[0])
    if found.blas is not None:
        said.append(f", {found.blas}")
        if found.blas_problem is None:
            said.append(" (fast)", "green")
        else:
            said.append(f" (slow: {found.blas_problem})", "yellow")
    if len(found.backends) > 1:
        said.append(f"   beside {', '.join(found.backends[1:])}: `inv doctor`", "bold yellow")
    return [*drawn, said]


def _models(models: Sequence[ModelEntry], width: int, most: int) -> list[Text]:
    if not models:
        return [_row("models", "none", "dim").append("   `inv download-model USER/NAME`", "dim")]
    total = sum(each.bytes or 0 for each in models)
    cached = sum(each.where == "cache" for each in models)
    head = f"{words.plural(len(models), 'model')}, {words.size(total)}"
    drawn = [_row("models", head + (f", {cached} of them in the hub's cache" if cached else ""))]
    sizes = [words.size(each.bytes) for each in models]
    size_width = max(map(cell_len, sizes))
    shown = list(zip(models, sizes, strict=True))[: most if len(models) <= most else max(most - 1, 0)]
    name_width = min(max((cell_len(each.name) for each, _ in shown), default=0), max(width - _LABEL - 34, 16))
    for each, size in shown:
        text = _row("", _cut(words.visible(each.name), name_width)).append(f"  {size:>{size_width}}")
        numbers = [_parameters(each.parameters), each.quantization or each.dtype]
        text.append(f"  {' '.join(part for part in numbers if part)}", "dim")
        drawn.append(text.append("  cannot be used", "yellow") if each.problem else text)
    if most and len(models) > len(shown):
        drawn.append(_row("", f"and {len(models) - len(shown)} more", "dim"))
    return drawn


def _parameters(number: int | None) -> str | None:
    if number is None:
        return None
    return f"{number / 1e9:.3g} G" if number >= 1e9 else f"{number / 1e6:.3g} M"


def _runs(runs: RunsNow, width: int, now: datetime, unicode: bool, most: int, most_recent: int) -> list[Text]:
    if runs.problem is not None:
        folded = _folded(words.visible(runs.problem), width)
        return [_row("" if number else "runs", part, "yellow") for number, part in enumerate(folded)]
    if not runs.counts:
        return [_row("runs", "none", "dim").append("   `inv lora --model MODEL --data DATA`", "dim")]
    total = sum(runs.counts.values())
    parts = [f"{count:,} {status}" for status, count in sorted(runs.counts.items(), key=lambda each: -each[1])]
    drawn = [_row("runs", f"{words.plural(total, 'run')}: {', '.join(parts)}")]
    shown, recent = runs.at_work[:most], runs.recent[:most_recent]
    names = [words.visible(run["name"]) for run in (*shown, *recent)]
    name_width = min(max(map(cell_len, names), default=0), max(width // 3, 16))
    drawn += [_at_work(run, runs.gpu_memory.get(run["name"]), name_width, width, unicode) for run in shown]
    if len(runs.at_work) > len(shown):
        drawn.append(_row("", f"and {len(runs.at_work) - len(shown):,} more at work", "green"))
    drawn += _ended(recent, name_width, width, now, runs.alive)
    disk = runs.disk
    if disk["checkpoints"]:
        said = f"{words.plural(disk['checkpoints'], 'checkpoint')} of {words.plural(disk['runs'], 'run')}"
        drawn.append(_row("checkpoints", f"{words.size(disk['bytes'])} on disk, {said}"))
    return drawn


def _at_work(run: RunSummaryView, gpu_memory: float | None, name_width: int, width: int, unicode: bool) -> Text:
    """One run at work, with as much behind its bar as fits."""
    text = _row("", _cut(words.visible(run["name"]), name_width)).append("  ")
    target = run["target_iterations"] if run["is_target_known"] else None
    after = [words.progress(run["iteration"], target)]
    more = [
        f"{words.duration(run['eta_seconds'])} left" if run["eta_seconds"] is not None else "",
        f"loss {words.number(run['train_loss'])}" if run["train_loss"] is not None else "starting",
        f"{words.count(run['tokens_per_second'])} tokens/s" if run["tokens_per_second"] is not None else "",
        f"{words.metric('active_memory', gpu_memory)} on the GPU" if gpu_memory is not None else "",
    ]
    room = width - cell_len(text.plain) - 8
    for part in filter(None, more):
        if cell_len("  ".join([*after, part])) + 2 <= room:
            after.append(part)
    said = "  " + "  ".join(after)
    bar = max(min(width - cell_len(text.plain) - cell_len(said), _BAR), 0)
    return text.append_text(lines.bar(run["progress"], bar, unicode=unicode)).append(said)


def _ended(
    runs: Sequence[RunSummaryView], name_width: int, width: int, now: datetime, alive: Sequence[str]
) -> list[Text]:
    """The runs that are not at work in aligned columns, of which the last give way where there is no room."""
    cells = [
        (
            "lost, process alive" if run["name"] in alive else run["status"],
            words.progress(run["iteration"], run["target_iterations"] if run["is_target_known"] else None),
            _loss(run),
            words.age(run["ended_at"] or run["updated_at"], now),
        )
        for run in runs
    ]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    shown = len(widths)
    while shown > 1 and _LABEL + name_width + sum(each + 2 for each in widths[:shown]) > width:
        shown -= 1
    drawn = []
    for run, values in zip(runs, cells, strict=True):
        text = _row("", _cut(words.visible(run["name"]), name_width))
        for number, (value, room) in enumerate(zip(values[:shown], widths, strict=False)):
            style = lines.style_of_status(run["status"]) if number == 0 else ""
            text.append("  ").append(set_cell_size(value, room), style)
        text.rstrip()
        drawn.append(text)
    return drawn


def _loss(run: RunSummaryView) -> str:
    if run["best_validation_loss"] is not None:
        return f"best {words.number(run['best_validation_loss'])}"
    return "" if run["train_loss"] is None else f"loss {words.number(run['train_loss'])}"


def _row(label: str, value: str = "", style: str = "") -> Text:
    return lines.line().append(set_cell_size(label, _LABEL), "dim").append(value, style)


def _measure(label: str, share: float, said: str, width: int, unicode: bool, *, warns: bool = True) -> Text:
    """A bar, its percentage and what it means; nearly full is said in another colour beside the number."""
    room = min(_BAR, max(width - _LABEL - 44, 8))
    share = min(max(share, 0.0), 1.0)
    text = _row(label).append_text(lines.bar(min(share, 0.999), room, unicode=unicode))
    return text.append(f" {100 * share:3.0f} %", "bold yellow" if warns and share >= _NEARLY_FULL else "").append(
        f"   {said}"
    )


def _share(label: str, used: int, total: int, width: int, unicode: bool) -> Text:
    said = f"{words.size(used)} of {words.size(total)}"
    return _measure(label, used / max(total, 1), said, width, unicode)


def _folded(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(width - _LABEL, 20), break_on_hyphens=False) or [""]


def _cut(text: str, width: int) -> str:
    return set_cell_size(shortened(text, width), width)


def _beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    drawn = []
    for number in range(max(len(left), len(right))):
        first = left[number].copy() if number < len(left) else lines.line()
        first.truncate(width, pad=True)
        second = right[number] if number < len(right) else lines.line()
        joined = first.append(" " * _GAP).append_text(second)
        joined.rstrip()
        drawn.append(joined)
    return drawn
