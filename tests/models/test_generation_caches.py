"""Caches of prompts: over turns, in files, under adapters, and wherever an answer was left."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import mlx.core as mx
import pytest
from generated_answers import KINDS, continued

from mlxops.errors import BadRequest
from mlxops.models.adapter_slot import AdapterSpec
from mlxops.models.generation import LoadedModel, Sampling, Stream, generate
from mlxops.models.loading import load_for_generation
from mlxops.models.prompt_cache import PromptCache


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
