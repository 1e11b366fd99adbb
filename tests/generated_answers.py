"""How the tests of answers sample, and what follows an answer."""

from __future__ import annotations

import pytest

from mlxops.models.generation import Sampling

WARM = Sampling(temperature=1.0, top_p=0.95, top_k=50, min_p=0.02, seed=7)
PENALTY = Sampling(temperature=0.8, repetition_penalty=1.3, seed=3)
KINDS = pytest.mark.parametrize("sampling", [Sampling(), WARM, PENALTY], ids=["greedy", "sampled", "penalty"])


def continued(prompt: list[int], answer: tuple[int, ...], more: int = 6) -> list[int]:
    """A prompt that resumes from an answer."""
    return [*prompt, *answer, *range(20, 20 + more)]
