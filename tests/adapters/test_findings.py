"""What the evidence of a folder proves: ambiguous states as values, and what each of them is told to be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlxops.adapters.evidence import Evidence, Recorded, Shape, State, Weights, settings_shape
from mlxops.adapters.findings import findings, newest

RANK_8 = {
    f"model.layers.{layer}.self_attn.q_proj.lora_{part}": ("F32", size)
    for layer in (2, 3)
    for part, size in (("a", (64, 8)), ("b", (8, 64)))
}
RANK_4 = {name: (kind, tuple(4 if each == 8 else each for each in size)) for name, (kind, size) in RANK_8.items()}
SHAPE = Shape(modified=100.0, target=300, rank=8, layers=2, keys=("self_attn.q_proj",))


def weights(iteration: int | None, written: float | None = None, **changed: Any) -> Weights:
    """A file of mlx-lm's, written some time after the settings."""
    known = {
        "name": "adapters.safetensors" if iteration is None else f"{iteration:07d}_adapters.safetensors",
        "iteration": iteration,
        "modified": written if written is not None else 100.0 + (iteration or 1000),
        "tensors": RANK_8,
        "sha256": str(iteration),
        "not_finite": (),
    }
    return Weights(**{**known, **changed})


def mlx_lm(*files: Weights, **changed: Any) -> Evidence:
    """A folder of mlx-lm's."""
    return Evidence(**{"weights": files, "shape": SHAPE, **changed})


def ours(*iterations: int, **changed: Any) -> Evidence:
    """A folder of ours with whole checkpoints."""
    known = {
        "weights": [weights(each, says=each, fingerprint="f") for each in iterations],
        "states": [state(each) for each in iterations],
        "shape": replace(SHAPE, is_ours=True, fingerprint="f", target=1000),
    }
    return Evidence(**{**known, **changed})


def state(iteration: int, **changed: Any) -> State:
    known = {"name": f"{iteration:07d}_state.safetensors", "iteration": iteration, "fingerprint": "f"}
    return State(**{**known, "adapter_sha256": str(iteration), **changed})


def kinds(evidence: Evidence) -> list[tuple[str, tuple[int, ...]]]:
    """What was found, as kind and iterations."""
    return [(found.kind, found.iterations) for found in findings(evidence)]


def test_a_clean_folder_of_ours_contradicts_nothing() -> None:
    assert findings(ours(100, 200, 300)) == []


def test_a_clean_folder_of_mlx_lm_says_what_its_final_file_is_a_copy_of() -> None:
    folder = mlx_lm(weights(100), weights(200), weights(None, sha256="200"))

    assert kinds(folder) == [("final", (200,))]


STATES: dict[str, tuple[Evidence, list[tuple[str, tuple[int, ...]]]]] = {
    "a final file that is none of the numbered ones": (
        mlx_lm(weights(100), weights(200), weights(None)),
        [("final", ())],
    ),
    "a final file that is not the newest numbered one": (
        mlx_lm(weights(100), weights(200), weights(None, sha256="100")),
        [("final", (100,))],
    ),
    "files older than the settings": (
        mlx_lm(weights(100), weights(200, written=50.0), weights(300, written=60.0)),
        [("left over", (200, 300)), ("out of order", (200, 300))],
    ),
    "files that are all older than the settings": (
        mlx_lm(weights(100, written=50.0), weights(200, written=60.0), weights(None, written=60.0, sha256="200")),
        [("older", ()), ("final", (200,))],
    ),
    "numbers beyond what the settings train for": (
        mlx_lm(weights(100), weights(400), weights(500)),
        [("beyond", (400, 500))],
    ),
    "numbering that restarted": (
        mlx_lm(weights(100, written=900.0), weights(200, written=500.0), shape=None),
        [("out of order", (200,))],
    ),
    "files of two shapes": (
        mlx_lm(weights(100, tensors=RANK_4), weights(200), weights(300)),
        [("mixed", (100,))],
    ),
    "files of two runs": (
        ours(100, 200, states=[state(100, fingerprint="g"), state(200)]),
        [("mixed", (100,))],
    ),
    "files of two runs without settings": (
        ours(100, 200, 300, states=[state(100, fingerprint="g")], shape=None),
        [("weights alone", (200, 300)), ("mixed", (100,))],
    ),
    "settings of another rank": (
        mlx_lm(weights(100), shape=replace(SHAPE, rank=16)),
        [("does not match", (100,))],
    ),
    "settings of more layers": (
        mlx_lm(weights(100), shape=replace(SHAPE, layers=16)),
        [("does not match", (100,))],
    ),
    "settings of fewer layers": (
        mlx_lm(weights(100), shape=replace(SHAPE, layers=1)),
        [("does not match", (100,))],
    ),
    "settings of other keys": (
        mlx_lm(weights(100), shape=replace(SHAPE, keys=("self_attn.v_proj",))),
        [("does not match", (100,))],
    ),
    "settings of a full training beside an adapter": (
        mlx_lm(weights(100), shape=replace(SHAPE, kind="full")),
        [("does not match", (100,))],
    ),
    "settings of an adapter beside full weights": (
        mlx_lm(weights(100, tensors={"model.layers.3.mlp.up_proj.weight": ("F32", (64, 64))})),
        [("does not match", (100,))],
    ),
    "a name that is not what the file says": (
        mlx_lm(weights(100, says=300)),
        [("misnamed", (100,))],
    ),
    "a state without its weights": (
        ours(100, states=[state(100), state(200)]),
        [("state alone", (200,))],
    ),
    "weights whose state was pruned": (
        ours(100, 200, states=[state(200)]),
        [("weights alone", (100,))],
    ),
    "weights that were written over": (
        ours(100, states=[state(100, adapter_sha256="another")]),
        [("damaged", (100,))],
    ),
    "numbers that are not finite": (
        mlx_lm(weights(100, not_finite=("a", "b"))),
        [("not finite", (100,))],
    ),
    "a file that cannot be read": (
        mlx_lm(weights(100, problem="cannot be read", tensors={}), weights(200)),
        [("unreadable", (100,))],
    ),
    "a whole checkpoint that is gone": (
        ours(100, recorded=[Recorded(iteration=100, status="whole"), Recorded(iteration=200, status="whole")]),
        [("registry", (200,))],
    ),
    "a state that is gone": (
        ours(100, states=[], recorded=[Recorded(iteration=100, status="whole")]),
        [("weights alone", (100,)), ("registry", (100,))],
    ),
    "a pruned checkpoint that is there": (
        ours(100, recorded=[Recorded(iteration=100, status="pruned")]),
        [("registry", (100,))],
    ),
    "other bytes than those recorded": (
        ours(100, recorded=[Recorded(iteration=100, status="whole", adapter_sha256="another")]),
        [("registry", (100,))],
    ),
    "a checkpoint without a row": (
        ours(100, 200, recorded=[Recorded(iteration=100, status="whole")]),
        [("registry", (200,))],
    ),
    "a target below what was left over alone": (
        mlx_lm(weights(100), weights(500), target=150),
        [("beyond", (500,))],
    ),
    "a target below the newest": (
        ours(100, 200, target=150),
        [("target below", (200,))],
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_an_ambiguous_state_is_found_out(name: str) -> None:
    evidence, expected = STATES[name]

    assert kinds(evidence) == expected


@pytest.mark.parametrize("name", STATES)
def test_every_finding_is_a_sentence_that_names_what_it_is_about(name: str) -> None:
    for found in findings(STATES[name][0]):
        named = [f"{each:,}" in found.message or f"{each:07d}" in found.message for each in found.iterations]
        assert all(named), found.message
        assert not found.message.endswith(".")


def test_many_iterations_are_counted_and_not_all_named() -> None:
    (found, *_) = findings(mlx_lm(*(weights(each, written=1.0) for each in range(10, 110, 10)), weights(None)))

    assert found.message.startswith("iterations 10, 20, 30, 40, 50 and 5 more are older than adapter_config.json")


def test_a_small_model_may_have_fewer_layers_than_the_settings_ask_for() -> None:
    small = {
        name.replace("layers.2", "layers.0").replace("layers.3", "layers.1"): each for name, each in RANK_8.items()
    }

    assert findings(mlx_lm(weights(100, tensors=small), shape=replace(SHAPE, layers=16))) == []


def test_ours_may_be_older_than_its_settings_which_every_start_writes_anew() -> None:
    written = [weights(each, written=1.0, says=each, fingerprint="f") for each in (100, 200)]

    assert findings(ours(100, 200, weights=written)) == []


# the newest weights --------------------------------------------------------------------------------------------------


def chosen(evidence: Evidence) -> tuple[str, int | None] | None:
    found = newest(evidence)
    return found and (found.name, found.iteration)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(mlx_lm(), None, id="nothing"),
        pytest.param(mlx_lm(weights(100), weights(200)), ("0000200_adapters.safetensors", 200), id="the highest"),
        pytest.param(mlx_lm(weights(None)), ("adapters.safetensors", 300), id="the final one alone has the target"),
        pytest.param(
            mlx_lm(weights(None), shape=None), ("adapters.safetensors", None), id="nothing tells its iteration"
        ),
        pytest.param(
            mlx_lm(weights(100), weights(200), weights(None)),
            ("adapters.safetensors", 300),
            id="a final one written last is the target's",
        ),
        pytest.param(
            mlx_lm(weights(100), weights(200), weights(None, written=1.0)),
            ("0000200_adapters.safetensors", 200),
            id="an old final one is not",
        ),
        pytest.param(
            mlx_lm(weights(100), weights(200), weights(None, sha256="200")),
            ("0000200_adapters.safetensors", 200),
            id="a copy is what it is a copy of",
        ),
        pytest.param(
            mlx_lm(weights(100), weights(200, written=50.0), weights(500, written=60.0), weights(None, sha256="100")),
            ("0000100_adapters.safetensors", 100),
            id="leftovers of an earlier training do not count",
        ),
        pytest.param(
            mlx_lm(weights(100), weights(200, problem="cannot be read")),
            ("0000100_adapters.safetensors", 100),
            id="nor does what cannot be read",
        ),
        pytest.param(
            mlx_lm(weights(100), weights(200, not_finite=("a",))),
            ("0000100_adapters.safetensors", 100),
            id="nor what is not finite",
        ),
        pytest.param(
            ours(100, 200, weights=[*ours(100, 200).weights, weights(None)]),
            ("0000200_adapters.safetensors", 200),
            id="what a run of ours offers is only a copy",
        ),
    ],
)
def test_the_newest_weights_are_those_of_this_training(evidence: Evidence, expected: Any) -> None:
    assert chosen(evidence) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, Shape(), id="nothing"),
        pytest.param(
            {"fine_tune_type": "dora", "num_layers": 4, "iters": 9, "lora_parameters": {"rank": 2, "keys": ["b", "a"]}},
            Shape(kind="dora", layers=4, target=9, rank=2, keys=("a", "b")),
            id="mlx-lm's",
        ),
        pytest.param({"lora_layers": 4, "lora_parameters": None}, Shape(layers=4), id="old mlx-lm's"),
        pytest.param(
            {"mlxops": {"target": 5, "fingerprint": "f"}}, Shape(is_ours=True, target=5, fingerprint="f"), id="ours"
        ),
        pytest.param({"iters": "many", "lora_parameters": {"rank": True}}, Shape(), id="nonsense"),
    ],
)
def test_settings_are_read_as_far_as_they_make_sense(settings: dict[str, Any], expected: Shape) -> None:
    assert settings_shape(settings, 0.0) == expected
