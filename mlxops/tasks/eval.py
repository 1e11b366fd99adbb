"""Talking to a model, and testing it."""

from __future__ import annotations

from invoke import Context

from mlxops.config import BenchmarkConfig, ChatConfig, CompareModelsConfig, QueryConfig, ServeConfig, TestConfig
from mlxops.tasks import house
from mlxops.tasks.house import task


@task
def chat(c: Context, config: ChatConfig) -> None:
    """Talk to a model, with the adapter of a run or without one.

    /help lists the commands. Ctrl-C stops an answer, Ctrl-D ends the chat. -p answers one message; a pipe is read line
    by line as if typed.
    """
    from mlxops.jobs.eval import chat as job
    from mlxops.jobs.eval import chat_input
    from mlxops.ui.eval import chat as drawing
    from mlxops.ui.eval import notes
    from mlxops.ui.terminal import console

    out, err = console.make(), console.make(stderr=True)
    message = chat_input.message_of(config.prompt)
    talker = job.open_chat(house.invocation(c), config, notes.teller(err))
    if message is None:
        return drawing.talk(talker, out, err)
    return chat_input.check(drawing.draw(talker.say(message), talker, out, err, tells_problems=False))


@task
def query(c: Context, config: QueryConfig) -> None:
    """Ask a model one question: the answer alone goes to stdout.

    A pipe is the question unless -p gives one. --schema makes the answer JSON that is valid by a JSON schema. -i asks
    again and again, each question by itself.
    """
    from mlxops.jobs.eval import chat_input
    from mlxops.jobs.eval import query as job
    from mlxops.ui.eval import notes
    from mlxops.ui.eval import query as drawing
    from mlxops.ui.terminal import console

    question, screen = job.question_of(config), console.make(stderr=True)
    asked = job.open_query(house.invocation(c), config, notes.teller(screen))
    if question is None:
        return drawing.ask_on(asked, console.make(), screen)
    return chat_input.check(drawing.answer(asked.ask(question), console.make(), as_json=config.json))


@task
def test(c: Context, config: TestConfig) -> None:
    """Measure a model on data, and record the scores.

    It is tested with the adapter of a run or without one. --compare-base measures it without the adapter too: how far
    they are apart, how sure that is, and which rows became better or worse. --all-checkpoints tests those of a run one
    after the other.
    """
    from mlxops.jobs.eval import results as found
    from mlxops.jobs.eval import test as job
    from mlxops.ui.eval import notes
    from mlxops.ui.eval import test as drawing
    from mlxops.ui.terminal import console, progress, tables

    out, screen = console.make(), console.make(stderr=True)
    measured: list[found.TestResults] = []
    try:
        with progress.bars(screen, plain=True) as advance:
            plan = job.plan(house.invocation(c), config, advance)
            notes.tell(plan.notes, screen)
            job.run(plan, advance, measured)
    finally:
        if measured and config.json:
            tables.json_out(found.all_to_json(measured, is_list=config.all_checkpoints), out)
        elif measured and config.all_checkpoints:
            drawing.checkpoints(measured, out)
        elif measured:
            drawing.results(measured[0], out)


@task
def compare(c: Context, config: CompareModelsConfig) -> None:
    """Test models, runs or checkpoints on the same rows, and compare.

    Each is tested and recorded as inv test does it; then every one is compared with the first. A run goes before a
    model of the same name; models/NAME names the model.
    """
    from mlxops.jobs.eval import compare as job
    from mlxops.ui.eval import notes
    from mlxops.ui.eval import test as drawing
    from mlxops.ui.terminal import console, progress, tables

    out, screen = console.make(), console.make(stderr=True)
    entries: list[job.Entry] = []
    try:
        with progress.bars(screen, plain=True) as advance:
            plans = job.plan(house.invocation(c), config, advance)
            notes.tell((note for _, plan in plans for note in plan.notes), screen)
            job.run(plans, advance, entries)
    finally:
        if entries:
            tables.json_out(job.to_json(entries), out) if config.json else drawing.comparison(entries, out)


@task
def benchmark(c: Context, config: BenchmarkConfig) -> None:
    """Time how fast a model answers, and record every trial.

    Prompt and writing are timed apart, token by token, after a first request that does not count. Several lengths are
    timed in turn. Ctrl-C keeps the trials there are.
    """
    from mlxops.jobs.eval import benchmark as job
    from mlxops.ui.eval import benchmark as drawing
    from mlxops.ui.eval import notes
    from mlxops.ui.terminal import console, progress

    screen = console.make(stderr=True)
    plan = job.plan(house.invocation(c), config, notes.teller(screen))
    with progress.bars(screen, plain=True) as advance:
        result = job.measure(plan, advance)
    drawing.draw(result, console.make(), "json" if config.json else config.format)
    if result.is_interrupted:
        raise KeyboardInterrupt


@task
def serve(c: Context, config: ServeConfig) -> None:
    """Serve a model and its runs to other programs by OpenAI's API.

    A request names the model, RUN or RUN:ITERATION as its model; adapters are changed without loading anything anew.
    Only programs of this machine are answered unless --host and --api-key say otherwise. Ctrl-C ends it.
    """
    from mlxops.jobs.eval import serve as job
    from mlxops.ui.eval import notes
    from mlxops.ui.eval import serve as drawing
    from mlxops.ui.terminal import console

    out, screen = console.make(), console.make(stderr=True)
    plan = job.plan(house.invocation(c), config)
    notes.tell(plan.notes, screen)
    with job.serve(plan, drawing.Log(screen, house.keep_bug)) as serving:
        drawing.ready(serving, out, screen, as_json=config.json)
        job.answer(serving)


COLLECTION = "eval"
TASKS = (chat, query, test, compare, benchmark, serve)
SHORT_NAMES = {"chat": chat, "query": query, "test": test, "benchmark": benchmark}
