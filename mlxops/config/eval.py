"""Options of the tasks that talk to a model and test it."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlxops.config.bounds import HUGE
from mlxops.options import option, settings


@settings
class ChatConfig:
    """Settings of a chat."""

    EXAMPLES: ClassVar = (
        "chat --run latest",
        'chat SmolLM2-135M-Instruct -p "What is the capital of France?"',
    )
    GROUPS: ClassVar = {
        "model": "model",
        "prompt": "what is said",
        "max_tokens": "how tokens are chosen",
        "thoughts": "output",
    }

    model: str | None = option("", "model folder, its name in models/, or hub id", positional=True, path=True)
    adapter_path: str | None = option(None, "adapter folder, or one of its files", path=True)
    run: str | None = option(None, "adapter of a run: RUN, RUN:ITERATION, RUN:best or RUN:last")
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")
    draft_model: str | None = option(None, "smaller model of the same tokenizer that proposes tokens", path=True)
    prompt: str | None = option(None, "answer this one message and end; - reads it from standard input", aliases=["p"])
    system: str | None = option(None, "system prompt")
    max_tokens: int = option(256, "tokens of an answer at most", at_least=1, at_most=HUGE)
    temperature: float = option(0.0, "sampling temperature; 0 is greedy", at_least=0, at_most=100, aliases=["temp"])
    top_p: float = option(1.0, "sample from the most likely tokens of this probability", above=0, at_most=1)
    top_k: int = option(0, "sample from so many most likely tokens; 0 for all", at_least=0, at_most=HUGE)
    min_p: float = option(0.0, "leave out tokens below this share of the likeliest", at_least=0, at_most=1)
    repetition_penalty: float = option(
        1.0, "divide the logits of the last 20 tokens by this; 1 for none", above=0, at_most=100
    )
    seed: int = option(0, "seed of the sampling", at_least=0, at_most=2**63 - 1)
    thoughts: Literal["dim", "hide", "show"] = option("dim", "how a model's thoughts are shown")
    markdown: bool = option(True, "draw markdown in a terminal")
    json: bool = option(False, "one JSON object for each answer")


@settings
class QueryConfig:
    """Settings of a single question."""

    EXAMPLES: ClassVar = (
        'query SmolLM2-135M-Instruct -p "What is the capital of France?"',
        "query --run latest --json < question.txt",
    )
    GROUPS: ClassVar = {
        "model": "model",
        "prompt": "what is asked",
        "max_tokens": "how tokens are chosen",
        "json": "output",
    }

    model: str | None = option("", "model folder, its name in models/, or hub id", positional=True, path=True)
    adapter_path: str | None = option(None, "adapter folder, or one of its files", path=True)
    run: str | None = option(None, "adapter of a run: RUN, RUN:ITERATION, RUN:best or RUN:last")
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")
    draft_model: str | None = option(None, "smaller model of the same tokenizer that proposes tokens", path=True)
    prompt: str | None = option(None, "the question; - and a pipe read it from standard input", aliases=["p"])
    interactive: bool = option(False, "ask again and again, each question by itself", aliases=["i"])
    system: str | None = option(None, "system prompt")
    schema: str | None = option(None, "JSON schema file; the answer is JSON that is valid by it", path=True)
    max_tokens: int = option(512, "tokens of an answer at most", at_least=1, at_most=HUGE)
    temperature: float = option(0.0, "sampling temperature; 0 is greedy", at_least=0, at_most=100, aliases=["temp"])
    top_p: float = option(1.0, "sample from the most likely tokens of this probability", above=0, at_most=1)
    top_k: int = option(0, "sample from so many most likely tokens; 0 for all", at_least=0, at_most=HUGE)
    min_p: float = option(0.0, "leave out tokens below this share of the likeliest", at_least=0, at_most=1)
    repetition_penalty: float = option(
        1.0, "divide the logits of the last 20 tokens by this; 1 for none", above=0, at_most=100
    )
    seed: int = option(0, "seed of the sampling", at_least=0, at_most=2**63 - 1)
    json: bool = option(False, "the answer and its counts as one JSON object")


@settings
class MeasuringConfig:
    """What `test` and `eval.compare` measure, and how."""

    metrics: list[str] = option(
        ["perplexity", "generation_quality"], "what is measured, also by installed metrics; repeat or use commas"
    )
    tasks: list[str] = option(
        [], "tasks of lm-eval instead of rows of your own (package mlxops[tasks]); repeat or use commas"
    )
    include_path: str | None = option(None, "folder with lm-eval tasks of your own, as YAML", path=True)
    num_fewshot: int | None = option(
        None, "solved examples before each question of a task; as the task says, else 0", at_least=0, at_most=1000
    )
    apply_chat_template: bool = option(True, "ask a task's questions as the model's chat template writes them")
    num_samples: int | None = option(
        None,
        "rows to draw; unless given, all, and 100 of them to answer; of a task the first ones",
        at_least=1,
        at_most=HUGE,
        aliases=["samples"],
    )
    max_tokens: int = option(
        256, "tokens of an answer at most; in a task, as it says unless given", at_least=1, at_most=HUGE
    )
    mask_prompt: bool = option(True, "measure only the assistant's words")
    max_seq_length: int | None = option(2048, "tokens per row; longer rows are cut", at_least=2, at_most=16_777_216)
    batch_size: int = option(4, "rows per batch; changes no score beyond rounding", at_least=1, at_most=65_536)
    seed: int = option(0, "seed of the drawn rows and of the confidence intervals", at_least=0, at_most=2**63 - 1)


@settings
class TestedModelConfig:
    """Which model `test` takes, and on which rows."""

    model: str | None = option("", "model folder, its name in models/, or hub id", positional=True, path=True)
    data: str | None = option(
        None, "file, all of whose rows are tested, or folder (test.jsonl, else valid.jsonl); the run's data", path=True
    )
    adapter_path: str | None = option(None, "adapter folder, or one of its files", path=True)
    run: str | None = option(None, "adapter of a run: RUN, RUN:ITERATION, RUN:best or RUN:last")
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")


@settings
class ComparedModelsConfig:
    """Which models `eval.compare` takes, and on which rows."""

    models: list[str] = option(
        None, "two to eight with commas: RUN, RUN:ITERATION, RUN:best, RUN:last, or a model", positional=True
    )
    data: str | None = option(
        None, "file, all of whose rows are tested, or folder (test.jsonl, else valid.jsonl); the first run's", path=True
    )
    trust_remote_code: bool = option(False, "run code from a model's folder, which can do all that you can")


# Fields stand in the order of the bases from the last to the first.
@settings
class TestConfig(MeasuringConfig, TestedModelConfig):
    """Settings of a test."""

    __test__: ClassVar = False  # no test of pytest's

    EXAMPLES: ClassVar = (
        "test --run latest --compare-base",
        "test SmolLM2-135M-Instruct --data data/test.jsonl --metrics perplexity --num-samples 100",
        "test --run latest --tasks arc_easy --num-samples 200",
    )
    GROUPS: ClassVar = {
        "model": "model and data",
        "metrics": "what is measured",
        "output": "output",
    }

    mask_prompt: bool = option(True, "measure only the assistant's words (as the run was trained, unless given)")
    max_seq_length: int | None = option(
        None, "tokens per row; longer rows are cut; as the run, else 2048", at_least=2, at_most=16_777_216
    )
    compare_base: bool = option(False, "measure the model without the adapter too, and compare")
    all_checkpoints: bool = option(False, "test every checkpoint of the run, and draw the curve")
    output: str | None = option(None, "JSON file for all results", path=True)
    json: bool = option(False, "all results as JSON")


@settings
class CompareModelsConfig(MeasuringConfig, ComparedModelsConfig):
    """Settings of a comparison of models on the same rows."""

    EXAMPLES: ClassVar = (
        "eval.compare slower,faster --metrics perplexity",
        "eval.compare models/SmolLM2-135M-Instruct,latest:best,latest:last --data data/test.jsonl",
    )
    GROUPS: ClassVar = {
        "models": "models and data",
        "metrics": "what is measured",
        "json": "output",
    }

    json: bool = option(False, "all results as JSON")


@settings
class BenchmarkConfig:
    """Settings of a benchmark."""

    EXAMPLES: ClassVar = (
        "benchmark SmolLM2-135M-Instruct",
        "benchmark --run latest --prompt-tokens 128,512 --context 0,1024",
        'benchmark SmolLM2-135M-Instruct --prompt "Tell me a story" --max-tokens 64 --format md',
    )
    GROUPS: ClassVar = {
        "model": "model",
        "prompt": "what is timed; of lists each combination",
        "format": "output",
    }

    model: str | None = option("", "model folder, its name in models/, or hub id", positional=True, path=True)
    adapter_path: str | None = option(None, "adapter folder, or one of its files", path=True)
    run: str | None = option(None, "adapter of a run: RUN, RUN:ITERATION, RUN:best or RUN:last")
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")
    draft_model: str | None = option(None, "smaller model of the same tokenizer that proposes tokens", path=True)
    prompt: str | None = option(None, "message to answer, instead of drawn tokens", aliases=["p"])
    prompt_tokens: list[int] = option(
        [512], "tokens of the prompt", at_least=1, at_most=HUGE, aliases=["n-prompt"], instead_of="prompt"
    )
    generation_tokens: list[int] = option(
        [128],
        "tokens to make; no token ends an answer",
        at_least=1,
        at_most=HUGE,
        aliases=["g", "n-gen", "max-tokens"],
    )
    context: list[int] = option(
        [0], "tokens that were read before the prompt", at_least=0, at_most=HUGE, aliases=["n-depth"]
    )
    batch_size: list[int] = option([1], "prompts at a time", at_least=1, at_most=65_536, aliases=["b"])
    iterations: int = option(
        5,
        "trials of each, after one that does not count",
        at_least=1,
        at_most=HUGE,
        aliases=["i", "n", "repetitions", "num-trials"],
    )
    format: Literal["table", "csv", "json", "md", "sql"] = option("table", "how the figures are written")
    json: bool = option(False, "the figures as JSON; the same as --format json", instead_of="format")


@settings
class ServeConfig:
    """Settings of a server."""

    EXAMPLES: ClassVar = (
        "eval.serve SmolLM2-135M-Instruct",
        "eval.serve latest --port 0 --json",
        "eval.serve latest --host 0.0.0.0 --api-key KEY",
    )
    GROUPS: ClassVar = {
        "model": "model",
        "host": "who may ask",
        "max_tokens": "how tokens are chosen, where a request does not say",
        "json": "output",
    }

    model: str | None = option("", "run, model folder, its name in models/, or hub id", positional=True, path=True)
    run: str | None = option(None, "run that answers where a request names no model: RUN, RUN:ITERATION, RUN:best")
    trust_remote_code: bool = option(False, "run code from the model's folder, which can do all that you can")
    draft_model: str | None = option(None, "smaller model of the same tokenizer that proposes tokens", path=True)
    host: str = option("127.0.0.1", "address to listen on; one that other machines reach needs a key")
    port: int = option(8080, "port to listen on; 0 for any that is free", at_least=0, at_most=65_535)
    api_key: str | None = option(None, "key that every request has to bring, else MLXOPS_API_KEY")
    queue: int = option(32, "requests that may wait; one more is told to try again", at_least=1, at_most=10_000)
    prompt_cache_size: int = option(4, "conversations whose prompts are kept computed", at_least=0, at_most=1_000)
    max_tokens: int = option(512, "tokens of an answer at most", at_least=1, at_most=HUGE)
    temperature: float = option(0.0, "sampling temperature; 0 is greedy", at_least=0, at_most=100, aliases=["temp"])
    top_p: float = option(1.0, "sample from the most likely tokens of this probability", above=0, at_most=1)
    top_k: int = option(0, "sample from so many most likely tokens; 0 for all", at_least=0, at_most=HUGE)
    min_p: float = option(0.0, "leave out tokens below this share of the likeliest", at_least=0, at_most=1)
    repetition_penalty: float = option(
        1.0, "divide the logits of the last 20 tokens by this; 1 for none", above=0, at_most=100
    )
    json: bool = option(False, "the address and the models as one JSON object, once it answers")
