"""A draft model: the same tokens sooner, and which model may draft for which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from generated_answers import KINDS, continued

from mlxops.errors import BadRequest
from mlxops.models.generation import LoadedModel, Sampling, generate
from mlxops.models.loading import load_for_generation
from mlxops.models.tiny import make_tiny


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
