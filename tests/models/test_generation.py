"""Making text: streams, batches, stop tokens, caches over turns, a draft model, and counts of each answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm import stream_generate, utils

from mlxops.errors import BadRequest
from mlxops.models.adapter_slot import AdapterSpec
from mlxops.models.conversation import prompt_tokens
from mlxops.models.generation import LoadedModel, Sampling, Stream, generate, generate_batch
from mlxops.models.loading import load_for_generation
from mlxops.models.prompt_cache import PromptCache
from mlxops.models.tiny import make_tiny

WARM = Sampling(temperature=1.0, top_p=0.95, top_k=50, min_p=0.02, seed=7)
PENALTY = Sampling(temperature=0.8, repetition_penalty=1.3, seed=3)
KINDS = pytest.mark.parametrize("sampling", [Sampling(), WARM, PENALTY], ids=["greedy", "sampled", "penalty"])

WORDS = ["What is the capital of France?", "Hi", "Explain in other words what this means for the other side.", "1 2"]


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    """The tiny model, which hardly ever ends an answer by itself."""
    return load_for_generation(tiny_model)


@pytest.fixture(scope="module")
def prompts(loaded: LoadedModel) -> list[list[int]]:
    """Conversations of different lengths."""
    return [prompt_tokens(loaded.tokenizer, [{"role": "user", "content": words}]) for words in WORDS]


@pytest.fixture(scope="module")
def drafted(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The same model with a smaller one that guesses, mostly wrong."""
    draft = make_tiny(tmp_path_factory.mktemp("models") / "draft", layers=2, seed=0)
    return replace(loaded, draft=utils.load_model(draft)[0])


@pytest.fixture(scope="module")
def recurrent(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny model that keeps a state which cannot be taken back."""
    folder = tmp_path_factory.mktemp("models") / "recurrent"
    shutil.copytree(tiny_model, folder)
    config = {
        "model_type": "mamba",
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 8,
        "num_hidden_layers": 2,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    model_class, arguments = utils._get_classes(config)
    mx.random.seed(1)
    model = model_class(arguments.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return load_for_generation(folder)


def an_adapter(loaded: LoadedModel, folder: Path) -> AdapterSpec:
    """An adapter of one layer that changes what the model says."""
    tensors = {}
    for name, columns in (("q_proj", 64), ("v_proj", 32)):
        place = f"model.layers.3.self_attn.{name}"
        tensors[f"{place}.lora_a"] = mx.random.normal((64, 4), key=mx.random.key(1))
        tensors[f"{place}.lora_b"] = mx.random.normal((4, columns), key=mx.random.key(2))
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)
    return AdapterSpec(
        name="the adapter",
        identity="adapter",
        weights=folder / "adapters.safetensors",
        fine_tune_type="lora",
        num_layers=1,
        rank=4,
        keys=["self_attn.q_proj", "self_attn.v_proj"],
    )


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


# Caches


def continued(prompt: list[int], answer: tuple[int, ...], more: int = 6) -> list[int]:
    """A prompt that resumes from an answer."""
    return [*prompt, *answer, *range(20, 20 + more)]


@KINDS
def test_the_second_turn_computes_only_the_new_tokens(
    loaded: LoadedModel, prompts: list[list[int]], sampling: Sampling
) -> None:
    cache = loaded.new_cache()
    first = generate(loaded, prompts[0], max_tokens=8, sampling=sampling, cache=cache)
    whole = continued(prompts[0], first.tokens)

    second = generate(loaded, whole, max_tokens=8, sampling=sampling, cache=cache)

    assert (second.cached_tokens, second.computed_tokens) == (len(prompts[0]) + 8, 6)
    assert second.tokens == generate(loaded, whole, max_tokens=8, sampling=sampling).tokens


def test_a_turn_taken_back_is_trimmed(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    cache = loaded.new_cache()
    first = generate(loaded, prompts[0], max_tokens=8, cache=cache)
    generate(loaded, continued(prompts[0], first.tokens), max_tokens=8, cache=cache)

    again = generate(loaded, prompts[0], max_tokens=8, cache=cache)

    assert (again.tokens, again.computed_tokens) == (first.tokens, 1)


def test_a_cache_is_saved_and_loaded(loaded: LoadedModel, prompts: list[list[int]], tmp_path: Path) -> None:
    cache = loaded.new_cache()
    first = generate(loaded, prompts[0], max_tokens=8, cache=cache)
    whole = continued(prompts[0], first.tokens)
    cache.save(tmp_path / "chat.safetensors")
    second = generate(loaded, whole, max_tokens=8, cache=cache)

    other = loaded.new_cache()
    other.load(tmp_path / "chat.safetensors")
    from_file = generate(loaded, whole, max_tokens=8, cache=other)

    assert [each.name for each in tmp_path.iterdir()] == ["chat.safetensors"]
    assert (from_file.tokens, from_file.cached_tokens) == (second.tokens, second.cached_tokens)


def test_a_cache_of_another_model_or_a_damaged_one_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    cache = loaded.new_cache()
    generate(loaded, [1, 5, 9], max_tokens=2, cache=cache)
    cache.save(tmp_path / "cache.safetensors")
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "cache.safetensors").read_bytes()[:100])
    other = PromptCache(loaded.model, owner="another")

    with pytest.raises(BadRequest, match="belongs to another model or adapter"):
        other.load(tmp_path / "cache.safetensors")
    with pytest.raises(BadRequest, match="is no prompt cache"):
        loaded.new_cache().load(tmp_path / "broken.safetensors")


def test_a_cache_is_not_used_under_another_adapter(tiny_model: Path, prompts: list[list[int]], tmp_path: Path) -> None:
    loaded = load_for_generation(tiny_model)
    cache = loaded.new_cache()
    generate(loaded, prompts[0], max_tokens=8, cache=cache)

    loaded.slot.put_in(an_adapter(loaded, tmp_path))
    with_cache = generate(loaded, prompts[0], max_tokens=8, cache=cache)
    from_nothing = generate(loaded, prompts[0], max_tokens=8)
    loaded.slot.take_out()
    base = generate(loaded, prompts[0], max_tokens=8, cache=cache)

    assert (with_cache.tokens, with_cache.cached_tokens) == (from_nothing.tokens, 0)
    assert with_cache.tokens != base.tokens
    assert base.cached_tokens == 0


def test_a_state_that_cannot_be_taken_back_is_computed_again(recurrent: LoadedModel, prompts: list[list[int]]) -> None:
    cache = recurrent.new_cache()
    first = generate(recurrent, prompts[0], max_tokens=8, cache=cache)
    whole = continued(prompts[0], first.tokens)

    going_on = generate(recurrent, whole, max_tokens=4, cache=cache)
    taken_back = generate(recurrent, prompts[0], max_tokens=8, cache=cache)

    assert going_on.computed_tokens == 6
    assert going_on.tokens == generate(recurrent, whole, max_tokens=4).tokens
    assert (taken_back.tokens, taken_back.cached_tokens) == (first.tokens, 0)


@pytest.mark.parametrize("taken", [1, 3])
def test_leaving_early_leaves_the_cache_right(loaded: LoadedModel, prompts: list[list[int]], taken: int) -> None:
    cache = loaded.new_cache()
    stream = Stream(loaded=loaded, prompt=prompts[0], max_tokens=30, cache=cache)
    pieces = iter(stream)

    list(islice(pieces, taken))
    pieces.close()

    answer = stream.answer
    assert answer.finish_reason == "cancelled"
    assert cache.tokens[: len(prompts[0])] == prompts[0]
    whole = continued(prompts[0], answer.tokens)
    again = generate(loaded, whole, max_tokens=8, cache=cache)
    assert again.cached_tokens == len(prompts[0]) + len(answer.tokens)
    assert again.tokens == generate(loaded, whole, max_tokens=8).tokens


@pytest.mark.slow
def test_a_prompt_can_be_stopped_while_it_is_read(loaded: LoadedModel) -> None:
    cache, prompt, looks = loaded.new_cache(), [5, 9, 30, 41] * 150, iter([False, True])

    answer = generate(loaded, prompt, max_tokens=4, cache=cache, should_stop=lambda: next(looks))

    assert (answer.tokens, answer.finish_reason, len(cache.tokens)) == ((), "cancelled", 512)
    assert generate(loaded, prompt, max_tokens=4, cache=cache).tokens == generate(loaded, prompt, max_tokens=4).tokens


def test_an_interrupt_in_the_middle_of_a_step_empties_the_cache(loaded: LoadedModel, prompts: list[list[int]]) -> None:
    cache = loaded.new_cache()

    def interrupt(tokens: mx.array, logits: mx.array) -> mx.array:
        if tokens.size > len(prompts[0]) + 3:
            raise KeyboardInterrupt
        return logits

    with pytest.raises(KeyboardInterrupt):
        generate(loaded, prompts[0], max_tokens=20, cache=cache, processors=[interrupt])

    assert cache.tokens == []
    again = generate(loaded, prompts[0], max_tokens=8, cache=cache)
    assert again.tokens == generate(loaded, prompts[0], max_tokens=8).tokens


# A draft model


@pytest.mark.slow
@KINDS
def test_a_draft_model_gives_the_same_tokens(
    loaded: LoadedModel, drafted: LoadedModel, prompts: list[list[int]], sampling: Sampling
) -> None:
    plain = [generate(loaded, prompt, max_tokens=12, sampling=sampling) for prompt in prompts]
    speculative = [generate(drafted, prompt, max_tokens=12, sampling=sampling) for prompt in prompts]

    assert [each.tokens for each in speculative] == [each.tokens for each in plain]


@KINDS
def test_a_draft_model_that_is_always_right_makes_most_tokens(
    loaded: LoadedModel, prompts: list[list[int]], sampling: Sampling
) -> None:
    same = replace(loaded, draft=loaded.model)

    answer = generate(same, prompts[0], max_tokens=12, sampling=sampling)

    assert answer.tokens == generate(loaded, prompts[0], max_tokens=12, sampling=sampling).tokens
    assert answer.drafted_tokens == 9


@pytest.mark.slow
@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("taken", [1, 2, 3, 4, 5, 8])
def test_a_cache_with_a_draft_model_is_right_wherever_it_is_left(
    loaded: LoadedModel, drafted: LoadedModel, prompts: list[list[int]], is_right: bool, taken: int
) -> None:
    both = replace(loaded, draft=loaded.model) if is_right else drafted
    cache = both.new_cache()
    first = generate(both, prompts[0], max_tokens=taken, cache=cache)
    whole = continued(prompts[0], first.tokens)

    second = generate(both, whole, max_tokens=10, cache=cache)

    assert second.tokens == generate(loaded, whole, max_tokens=10).tokens
    assert second.computed_tokens <= 6 + 2


def test_a_draft_model_of_another_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "other", vocab=400)

    with pytest.raises(BadRequest, match="the draft model 'other' has another tokenizer than 'tiny'"):
        load_for_generation(tiny_model, draft=other)


def test_a_model_that_cannot_take_tokens_back_has_no_draft_model(
    tiny_model: Path, recurrent: LoadedModel, tmp_path: Path
) -> None:
    folder = Path(recurrent.tokenizer.name_or_path)

    with pytest.raises(BadRequest, match="cannot take tokens back"):
        load_for_generation(folder, draft=tiny_model)


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
