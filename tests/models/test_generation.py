"""Making text: streams, sampling, batches, stop tokens, templates, and counts of each answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from generated_answers import KINDS, WARM
from mlx_lm import stream_generate, utils

from mlxops.errors import BadRequest
from mlxops.models.conversation import prompt_tokens
from mlxops.models.generation import LoadedModel, Sampling, Stream, generate, generate_batch
from mlxops.models.loading import load_for_generation

# One answer


def test_a_greedy_stream_is_that_of_mlx_lm(loaded: LoadedModel, prompts: list[list[int]], tiny_model: Path) -> None:
    model, tokenizer = utils.load(str(tiny_model))
    theirs = [each.token for each in stream_generate(model, tokenizer, prompts[0], max_tokens=20)]

    ours = generate(loaded, prompts[0], max_tokens=20)

    assert list(ours.tokens) == theirs
    assert ours.text == loaded.tokenizer.decode(theirs)


def test_an_answer_counts_what_it_took(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    stream = Stream(loaded=loaded, prompt=prompts[0], max_tokens=12)
    pieces = list(stream)

    answer = stream.answer
    assert answer.text == "".join(pieces)
    assert (answer.finish_reason, len(answer.tokens)) == ("length", 12)
    assert (answer.prompt_tokens, answer.cached_tokens, answer.computed_tokens) == (len(prompts[0]), 0, len(prompts[0]))
    assert 0 < answer.first_token_seconds < answer.seconds
    assert answer.tokens_per_second == pytest.approx(11 / (answer.seconds - answer.first_token_seconds))


def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    tokens = generate(loaded, prompts[0], max_tokens=12).tokens
    stopping = replace(loaded, stop_tokens=frozenset({tokens[5], 2}))

    answer = generate(stopping, prompts[0], max_tokens=12)
    (batched,) = generate_batch(stopping, prompts[:1], max_tokens=12)

    first = tokens.index(tokens[5])
    assert (answer.tokens, answer.finish_reason) == (tokens[:first], "stop")
    assert (batched.tokens, batched.finish_reason, batched.text) == (answer.tokens, "stop", answer.text)


@pytest.mark.parametrize(
    ("generation_config", "config", "stop_tokens"),
    [({"eos_token_id": [7, 0]}, 5, {7, 0}), ({}, 0, {0}), (None, None, {2})],
    ids=["generation config", "config", "tokenizer"],
)
def test_the_stop_tokens_are_those_of_the_generation_config_else_the_config_else_the_tokenizer(
    tiny_model: Path, tmp_path: Path, generation_config: Any, config: Any, stop_tokens: set[int]
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    settings = {**json.loads((folder / "config.json").read_text()), "eos_token_id": config}
    (folder / "config.json").write_text(json.dumps(settings))
    if generation_config is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation_config))

    assert load_for_generation(folder).stop_tokens == stop_tokens


def test_an_empty_prompt_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(BadRequest, match="the prompt is empty"):
        Stream(loaded=loaded, prompt=[], max_tokens=1)


def test_a_processor_of_the_caller_decides(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    seen = []

    def only_token_9(tokens: mx.array, logits: mx.array) -> mx.array:
        seen.append(tokens.tolist())
        return mx.where(mx.arange(logits.shape[-1]) == 9, logits, -mx.inf)

    alone = generate(loaded, prompts[0], max_tokens=3, processors=[only_token_9])
    (batched,) = generate_batch(loaded, prompts[:1], max_tokens=3, processors=lambda row: [only_token_9])

    assert alone.tokens == batched.tokens == (9, 9, 9)
    assert seen[0] == prompts[0]
    assert seen[1] == [*prompts[0], 9]
    assert seen[4] == prompts[0]


# Sampling


@pytest.mark.slow
def test_a_seed_gives_the_same_answer_whatever_was_drawn_before(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    first = generate(loaded, prompts[0], max_tokens=12, sampling=WARM)
    mx.random.seed(99)
    again = generate(loaded, prompts[0], max_tokens=12, sampling=WARM)

    assert again.tokens == first.tokens
    assert generate(loaded, prompts[0], max_tokens=12, sampling=replace(WARM, seed=8)).tokens != first.tokens
    assert generate(loaded, prompts[0], max_tokens=12, sampling=WARM, row=1).tokens != first.tokens


def test_sampling_does_not_disturb_the_global_random_state(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    mx.random.seed(5)
    undisturbed = mx.random.uniform(shape=(3,)).tolist()
    mx.random.seed(5)

    generate(loaded, prompts[0], max_tokens=4, sampling=replace(WARM, top_p=1, top_k=0, min_p=0))

    assert mx.random.uniform(shape=(3,)).tolist() == undisturbed


def test_top_k_of_1_and_more_than_the_vocabulary_are_fine(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    greedy = generate(loaded, prompts[0], max_tokens=8)

    one = generate(loaded, prompts[0], max_tokens=8, sampling=Sampling(temperature=1, top_k=1))
    all_of_them = generate(loaded, prompts[0], max_tokens=8, sampling=Sampling(temperature=1, top_k=10_000))
    plain = generate(loaded, prompts[0], max_tokens=8, sampling=Sampling(temperature=1))

    assert one.tokens == greedy.tokens
    assert all_of_them.tokens == plain.tokens


@pytest.mark.slow
def test_a_repetition_penalty_repeats_less(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    plain = generate(loaded, prompts[1], max_tokens=40)
    penalised = generate(loaded, prompts[1], max_tokens=40, sampling=Sampling(repetition_penalty=2))

    assert len(set(penalised.tokens)) > len(set(plain.tokens))


# Batches


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_gives_each_row_what_it_gets_alone(
    loaded: LoadedModel, prompts: list[list[int]], sampling: Sampling, batch_size: int
) -> None:
    alone = [generate(loaded, prompt, max_tokens=10, sampling=sampling, row=row) for row, prompt in enumerate(prompts)]

    batched = generate_batch(loaded, prompts, max_tokens=10, sampling=sampling, batch_size=batch_size)

    assert [each.tokens for each in batched] == [each.tokens for each in alone]
    assert [each.text for each in batched] == [each.text for each in alone]
    assert [each.prompt_tokens for each in batched] == [len(prompt) for prompt in prompts]


def test_a_batch_of_a_recurrent_model_gives_each_row_what_it_gets_alone(
    recurrent: LoadedModel, prompts: list[list[int]]
) -> None:
    alone = [generate(recurrent, prompt, max_tokens=6).tokens for prompt in prompts]

    assert [each.tokens for each in generate_batch(recurrent, prompts, max_tokens=6)] == alone


def test_a_batch_says_how_far_it_is(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    told = []

    generate_batch(loaded, prompts, max_tokens=5, progress=lambda made, most: told.append((made, most)))

    assert {most for _, most in told} == {5 * len(prompts)}
    assert [made for made, _ in told] == sorted(made for made, _ in told)
    assert told[-1][0] == 5 * len(prompts)


def test_no_prompts_are_no_answers(loaded: LoadedModel) -> None:
    assert generate_batch(loaded, [], max_tokens=5) == []


# Conversations


def test_a_template_that_refuses_says_why(loaded: LoadedModel) -> None:
    tokenizer = tokenizer_with(loaded, "{{ raise_exception('roles must alternate') }}")

    with pytest.raises(BadRequest, match="the model's chat template refuses the conversation: roles must alternate"):
        prompt_tokens(tokenizer, [{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", "{{ messages[9].content }}", "{{ 'a' + 1 }}", "{% if %}"])
def test_a_broken_template_is_told(loaded: LoadedModel, template: str) -> None:
    tokenizer = tokenizer_with(loaded, template)

    with pytest.raises(BadRequest, match="the model's chat template refuses the conversation: "):
        prompt_tokens(tokenizer, [{"role": "user", "content": "Hi"}])


def test_without_a_template_the_words_alone_are_the_prompt(loaded: LoadedModel) -> None:
    tokenizer = tokenizer_with(loaded, None)

    tokens = prompt_tokens(tokenizer, [{"role": "user", "content": "Water boils"}])

    assert tokenizer.decode(tokens) == "Water boils"


def tokenizer_with(loaded: LoadedModel, template: str | None) -> Any:
    """The tiny model's tokenizer with another chat template."""
    from mlxops.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(Path(loaded.tokenizer.name_or_path))
    tokenizer.chat_template = template
    return tokenizer
