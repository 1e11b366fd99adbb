"""The models on this disk."""

from __future__ import annotations

import shlex

from invoke import Context

from mlxops.config import (
    ConvertConfig,
    DownloadConfig,
    FuseConfig,
    ImportConfig,
    InfoConfig,
    ModelsConfig,
    RemoveConfig,
    VerifyConfig,
)
from mlxops.tasks import house
from mlxops.tasks.house import task


@task(name="list")
def list_models(c: Context, config: ModelsConfig) -> None:
    """List the models here, and search the hub's.

    --search asks the hub; its list is kept for an hour, and without a network the last one shows. `fit` says whether a
    model trains with LoRA, or only loads, in the memory that is free here.
    """
    from dataclasses import asdict

    from mlxops.jobs.model import listing
    from mlxops.ui.model import listing as drawing
    from mlxops.ui.terminal import console, tables

    found = listing.models(house.invocation(c), config)
    screen = console.make(stderr=True)
    if config.json:
        tables.json_out([asdict(each) for each in found.entries], console.make())
    else:
        drawing.models(found, console.make(), screen)


@task
def download(c: Context, config: DownloadConfig) -> None:
    """Download a model from the hub into models/.

    Every file is compared with the hub's hash, and the model gets its name when all of it is there. After any
    interruption the same command resumes. Only the files that MLX needs are fetched, and no code.
    """
    from mlxops.jobs.model import download as job
    from mlxops.ui.model import download as drawing
    from mlxops.ui.terminal import console, progress, tables

    out, screen = console.make(), console.make(stderr=True)
    plan = job.plan(house.invocation(c), config)
    for said in [] if plan.is_there else plan.says:
        screen.print(said, soft_wrap=True, markup=False, highlight=False)
    with progress.bars(screen, plain=True, of_bytes=True) as advance:
        result = job.download(plan, advance)
    tables.json_out(result.to_json(), out) if config.json else drawing.result(result, out)


@task
def info(c: Context, config: InfoConfig) -> None:
    """Show what a model is: numbers, template, memory.

    A conversation is written as its chat template writes it, with the token that ends a turn and those at which
    generation stops. Nothing is loaded, and no code of the model is run.
    """
    from mlxops.jobs.model import info as job
    from mlxops.ui.model import info as drawing
    from mlxops.ui.terminal import console, tables

    found = job.info(house.invocation(c), config)
    tables.json_out(found.to_json(), console.make()) if config.json else drawing.facts(found, console.make())


@task
def verify(c: Context, config: VerifyConfig) -> None:
    """Read a model through: hashes, every number, tokenizer.

    Hashes are those that `download-model` recorded. Ends with 1 where something is wrong.
    """
    from mlxops.jobs.model import verify as job
    from mlxops.ui.model import info as drawing
    from mlxops.ui.terminal import console, progress, tables

    out, screen = console.make(), console.make(stderr=True)
    with progress.bars(screen) as advance:
        found = job.verify(house.invocation(c), config, advance)
    tables.json_out([each.to_json() for each in found], out) if config.json else drawing.verified(found, out)
    job.refuse_damaged(found)


@task
def remove(c: Context, config: RemoveConfig) -> None:
    """Remove a model from models/; asks, and says what uses it."""
    from mlxops.jobs.model import remove as job
    from mlxops.ui.model import info as drawing
    from mlxops.ui.terminal import confirm, console, tables

    out = console.make()
    plan = job.plan(house.invocation(c), config)
    if confirm.confirm(plan.question, console.make(stderr=True), yes=config.yes):
        job.remove(plan)
        tables.json_out(plan.to_json(), out) if config.json else drawing.removed(plan, out)


@task(name="import")
def import_model(c: Context, config: ImportConfig) -> None:
    """Import a GGUF file, or the sample model, into models/."""
    from mlxops.jobs.model import models
    from mlxops.ui.terminal import console, progress, tables

    with progress.bars(console.make(stderr=True)) as advance:
        imported = models.import_model(house.invocation(c), config, advance)
    if config.json:
        tables.json_out(imported.to_json(), console.make())
    else:
        facts = [("type", imported.info.model_type), ("parameters", f"{imported.info.parameters:,}")]
        notes = [*imported.notes, f"inv lora --model {shlex.quote(imported.typed)} trains it"]
        tables.facts(imported.path, facts, notes, console.make())


@task
def convert(c: Context, config: ConvertConfig) -> None:
    """Quantize a model, unpack it, or change its type of numbers.

    The options are those of `mlx_lm.convert`. The same command again changes nothing.
    """
    from mlxops.jobs.model import convert as job
    from mlxops.jobs.model import sharing
    from mlxops.ui.model import convert as drawing
    from mlxops.ui.terminal import confirm, console, progress, tables

    out, screen = console.make(), console.make(stderr=True)
    sharing.check(config)
    with progress.bars(screen, plain=True) as advance:
        plan = job.plan(house.invocation(c), config, advance)
    if (question := job.question(plan)) and not confirm.confirm(question, screen, yes=config.yes):
        return
    with progress.bars(screen, plain=True) as advance:
        result = job.convert(plan, advance)
    result = sharing.upload(plan.invocation, config, result, screen.print, shows_bars=screen.is_interactive)
    tables.json_out(result.to_json(), out) if config.json else drawing.result(result, out)


@task
def fuse(c: Context, config: FuseConfig) -> None:
    """Make one model of base model and adapter, and compare them.

    The comparison is recorded. A base that is quantized stays so unless --de-quantize is given; where too much of the
    adapter would be lost by that, nothing is made. The same command again changes nothing.
    """
    from mlxops.jobs.model import fuse as job
    from mlxops.jobs.model import fuse_plan, sharing
    from mlxops.ui.model import fuse as drawing
    from mlxops.ui.terminal import confirm, console, progress, tables

    out, screen = console.make(), console.make(stderr=True)
    sharing.check(config)
    with progress.bars(screen, plain=True) as advance:
        plan = fuse_plan.plan(house.invocation(c), config, advance)
    if (question := fuse_plan.question(plan)) and not confirm.confirm(question, screen, yes=config.yes):
        return
    with progress.bars(screen, plain=True) as advance:
        result = job.fuse(plan, advance)
    result = sharing.upload(plan.invocation, config, result, screen.print, shows_bars=screen.is_interactive)
    tables.json_out(result.to_json(), out) if config.json else drawing.result(result, out)


COLLECTION = "model"
TASKS = (list_models, download, info, verify, remove, import_model, convert, fuse)
SHORT_NAMES = {"models": list_models, "download-model": download}
