"""What `train_speed.py` shows of its results: the table, and docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from train_limit import BATCH, DATA, attention_share, limit
from train_result import OURS, PROFILED, SWITCHES, THEIRS, TINY, Result


def pairs(results: Sequence[Result], program: str) -> Iterator[tuple[Result, Result]]:
    """A program's results with those of `mlx_lm.lora` on the same."""
    peers = {each.key[1:]: each for each in results if each.program == THEIRS}
    for each in results:
        if each.program == program and each.key[1:] in peers:
            yield each, peers[each.key[1:]]


def to_one_loss(ours: Result, theirs: Result) -> float | None:
    """How many times as soon as theirs our run has the lowest validation loss that both come to.

    None where no loss was measured on the way. Between two adapters that were saved the loss is taken for a straight
    line over the seconds since the command was given.
    """
    if not ours.saved or not theirs.saved:
        return None
    target = max(min(loss for _, loss in each.saved) for each in (ours, theirs))
    return _seconds_to(target, theirs) / _seconds_to(target, ours)


def _seconds_to(target: float, result: Result) -> float:
    before_at, before = result.saved[0]
    for at, loss in result.saved:
        if loss <= target:
            share = 1.0 if before == loss else (before - target) / (before - loss)
            return before_at + share * (at - before_at)
        before_at, before = at, loss
    raise ValueError(target)


def table(results: Sequence[Result], models: Sequence[Path]) -> list[str]:
    """A line for each program, number of layers and of epochs; with its limit where the model's folder is given."""
    from mlxops import words

    lines = [
        "| model | epochs | layers | program | tokens/s, times `mlx_lm.lora` | limit | one loss, times as soon "
        "| peak memory | validation loss, less theirs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    folders = {each.name: each for each in models}
    cells = sorted({(each.model, each.epochs, each.layers) for each in results})
    for name, epochs, layers in cells:
        for program in (OURS, *SWITCHES):
            here = [each for each in results if (each.model, each.epochs, each.layers) == (name, epochs, layers)]
            found = list(pairs(here, program))
            if not found:
                continue
            ratios = [theirs.seconds / ours.seconds for ours, theirs in found]
            losses = [mine.loss - peer.loss for mine, peer in found]
            peaks = [mine.peak / peer.peak for mine, peer in found]
            sooner = [each for each in map(to_one_loss, *zip(*found, strict=True)) if each is not None]
            bound = limit(folders[name], layers, epochs) if name in folders else None
            speed = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, "
            seeds = words.plural(len(ratios), "seed")
            # the tiny model is there for its losses alone
            shown = (
                (f"losses of {seeds}", "", "", "")
                if name == TINY
                else (
                    f"{speed}{seeds})",
                    f"{bound:.2f}" if bound is not None and program == OURS else "",
                    f"{statistics.median(sooner):.2f}" if sooner else "",
                    f"{statistics.median(peaks):.2f}",
                )
            )
            lines.append(f"| {name} | {epochs} | {layers} | {program} | {' | '.join(shown)} | {_mean(losses)} |")
    return lines


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:+.4f}"
    return f"{statistics.mean(values):+.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def where_time_goes(results: Sequence[Result], model: Path) -> str:
    """What of our time the arithmetic of the limit is not: a table by layers, empty where no run was profiled."""
    profiled = [each for each in results if each.program == PROFILED and each.model == model.name]
    if not profiled:
        return ""
    parts = sorted({part for each in profiled for part in each.parts}, key=lambda part: -profiled[0].parts.get(part, 0))
    rest = "start-up, and the rest"
    lines = [
        "## Where the time goes",
        "",
        "Seconds of runs of mlxops with `--profile`, by part. The limit knows products of matrices alone, which are in",
        "*prefix*, *forward and backward* and *validation*. In these, attention comes to "
        f"{attention_share(model):.0%} of the products of a",
        "layer, and it and small matrices take longer for each product than large ones. The other parts are lost",
        "beside them.",
        "",
        f"| epochs, layers | {' | '.join([*parts, rest, 'in all'])} |",
        f"|---{'|---' * (len(parts) + 2)}|",
    ]
    for each in profiled:
        seconds = [
            *(each.parts.get(part, 0.0) for part in parts),
            each.seconds - sum(each.parts.values()),
            each.seconds,
        ]
        lines.append(f"| {each.epochs}, {each.layers} | {' | '.join(f'{one:.1f}' for one in seconds)} |")
    return "\n".join(lines) + "\n\n"


def histogram(model: Path) -> str:
    """How long the training rows are, in tokens."""
    from mlxops import data
    from mlxops.models.tokenizer import load_tokenizer

    rows = data.tokenize(data.read(DATA).train, load_tokenizer(model), max_seq_length=2048, mask_prompt=True).rows
    steps = [sum(low <= each.length < low + 32 for each in rows) for low in range(0, 320, 32)]
    return ", ".join(f"{32 * place}+: {count}" for place, count in enumerate(steps) if count)


_PAGE = """# Performance

This page is printed by `benchmarks/train_speed.py`: whole runs, from the command to the finished adapter, of mlxops
and of the real `mlx_lm.lora` in turn, each in a process of its own with its own defaults, the same fast BLAS and
masked prompts. Both validate before the first epoch and after each, and save. There are {rows} rows of unlike length in
batches of {batch}, sections of this project's own pages; their lengths in tokens: {histogram}.

The machine: {machine}.

{table}

- **tokens/s** are trained tokens, an epoch's times the epochs, by the seconds of the whole command. The figure is the
  median of the ratios, with the smallest and the largest.
- **limit** is what the arithmetic allows, from the run's own counts: with P parameters in a layer, V in the head and
  N of L layers trained, a padded position costs `mlx_lm.lora` (L + N) P + 2 V, and mlxops 2 N P, 2 V more where it is
  trained, and (L - N) P once. Attention, small matrices, start-up and closing are not in it, and none of them becomes
  less.
- **one loss, times as soon** compares the seconds from the command to the lowest validation loss that both come to
  with an adapter that was saved after an epoch; empty where it was not measured.
- **peak memory** is MLX's own peak beside that of `mlx_lm.lora`.
- **validation loss** is that of both adapters on the same rows, measured in the same way.
- The rows below mlxops have one of what saves time switched off: *loss at every position* projects padding and masked
  prompts onto the vocabulary, *no frozen prefix* computes the layers below the first trained one at every step.

A ratio above the limit comes from other work on the machine during one of the two runs, or from what `mlx_lm.lora`
loses to it. With few seeds the difference of the losses says little: it changes with the order of the batches. The tiny
model is trained with more of them.

{where}What is computed and what is not stands in [training](training.md#what-is-computed-and-what-is-not).
"""


def page(results: Sequence[Result], models: Sequence[Path]) -> str:
    """docs/performance.md; its histogram and its profile are those of the first model."""
    from mlxops import words
    from mlxops.projects import machine

    facts, versions = machine.facts(), machine.versions()
    named = (
        f"{facts['cpu']}, {facts['cores']} cores, {words.size(float(facts['memory']))} of memory, {facts['machine']}, "
        f"Python {facts['python']}, mlx {versions['mlx']}, mlx-lm {versions['mlx-lm']}"
    )
    rows = len((DATA / "train.jsonl").read_text(encoding="utf-8").splitlines())
    return _PAGE.format(
        rows=rows,
        batch=BATCH,
        histogram=histogram(models[0]),
        machine=named,
        table="\n".join(table(results, models)),
        where=where_time_goes(results, models[0]),
    ).rstrip()
