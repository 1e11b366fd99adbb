"""A recipe in the YAML of `mlx_lm.lora`: every key means what it means there, or is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxops import recipe
from mlxops.config import LoraConfig
from mlxops.errors import BadRequest, InvalidData, NotFound
from mlxops.options import options_of
from mlxops.recipe import Recipe

# The keys of `CONFIG_DEFAULTS` in mlx_lm/lora.py, as its example file has them.
MLX_LM = """
model: mlx_model
train: true
fine_tune_type: lora
optimizer: adamw
optimizer_config:
  adamw: {betas: [0.9, 0.98], eps: 1e-6, weight_decay: 0.05}
data: data
seed: 0
num_layers: 16
batch_size: 4
iters: 1000
val_batches: 25
learning_rate: 1e-5
steps_per_report: 10
steps_per_eval: 200
resume_adapter_file: null
adapter_path: adapters
save_every: 100
test: false
test_batches: 100
max_seq_length: 2048
config: null
grad_checkpoint: false
grad_accumulation_steps: 1
clear_cache_threshold: 0
mask_prompt: false
report_to: null
project_name: null
trust_remote_code: false
lora_parameters:
  keys: ["self_attn.q_proj", "self_attn.v_proj"]
  rank: 8
  scale: 20.0
  dropout: 0.0
lr_schedule:
  name: cosine_decay
  warmup: 100
  warmup_init: 1e-7
  arguments: [1e-5, 1000, 1e-7]
"""


def read(text: str, **layers: dict[str, object]) -> Recipe:
    file = Path("r.yaml")
    file.write_text(text, encoding="utf-8")
    return recipe.read(file, **layers)


def test_every_key_of_mlx_lm_is_read() -> None:
    found = read(MLX_LM)

    assert found.notes == (
        "test_batches is ignored: `inv test --run latest --num-samples N` measures a run on rows of test.jsonl",
    )
    assert found.values == {
        "model": "mlx_model",
        "train": True,
        "fine_tune_type": "lora",
        "optimizer": "adamw",
        "optimizer_config": {"adamw": {"betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.05}},
        "data": "data",
        "seed": 0,
        "num_layers": 16,
        "batch_size": 4,
        "iters": 1000,
        "val_batches": 25,
        "learning_rate": 1e-5,
        "steps_per_report": 10,
        "steps_per_eval": 200,
        "adapter_path": "adapters",
        "save_every": 100,
        "max_seq_length": 2048,
        "grad_checkpoint": False,
        "grad_accumulation_steps": 1,
        "mask_prompt": False,
        "lora_keys": ["self_attn.q_proj", "self_attn.v_proj"],
        "lora_rank": 8,
        "lora_scale": 20.0,
        "lora_dropout": 0.0,
        "lr_schedule": "cosine_decay",
        "warmup": 100,
        "warmup_init": 1e-7,
        "lr_schedule_arguments": [1000, 1e-7],
    }


def test_mlx_lm_knows_no_key_that_is_not_read() -> None:
    from mlx_lm.lora import CONFIG_DEFAULTS

    known = {option.name for option in options_of(LoraConfig)} | {
        "lora_parameters",
        "clear_cache_threshold",
        "resume_adapter_file",
    }
    known |= set(recipe._WITHOUT_MEANING)

    assert set(CONFIG_DEFAULTS) <= known


def test_our_own_names_are_read_too_and_count_iterations() -> None:
    found = read(
        "lora_rank: 4\nlr_schedule: cosine_decay\nlr_schedule_arguments: [50]\nwarmup: 5\ngrad_accumulation_steps: 4\n"
    )

    assert (found.values["lora_rank"], found.values["warmup"]) == (4, 5)
    assert found.values["lr_schedule_arguments"] == [50]
    assert found.notes == ()


def test_an_empty_recipe_says_nothing() -> None:
    assert read("# nothing yet\n") == Recipe(values={}, notes=())


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "0.00001", "+1e-5", "'1e-5'"])
def test_a_number_is_a_number_however_it_is_written(text: str) -> None:
    assert read(f"learning_rate: {text}\n").values == {"learning_rate": 1e-5}


@pytest.mark.parametrize(
    ("schedule", "arguments", "note"),
    [
        ("cosine_decay, warmup: 10, arguments: [1e-4, 100, 1e-6]", [400, 1e-6], "warmup 10 is 40, the schedule's 100"),
        ("linear_schedule, arguments: [1e-4, 1e-6, 100]", [1e-6, 400], "the schedule's 100 is 400"),
        ("step_decay, arguments: [1e-4, 0.5, 25]", [0.5, 100], "the schedule's 25 is 100"),
        ("exponential_decay, arguments: [1e-4, 0.0625]", [0.5], "the schedule's 0.0625 is 0.5"),
    ],
)
def test_a_schedule_counted_in_updates_is_converted_and_that_is_said(
    schedule: str, arguments: list[float], note: str
) -> None:
    found = read(f"grad_accumulation_steps: 4\nlr_schedule: {{name: {schedule}}}\n")

    assert found.values["lr_schedule_arguments"] == arguments
    assert found.values["learning_rate"] == 1e-4
    assert note in found.notes[-1]


def test_the_accumulation_of_the_strongest_layer_converts() -> None:
    text = "lr_schedule: {name: cosine_decay, warmup: 10}\n"
    accumulate = {"grad_accumulation_steps": 2}

    assert read(text, below=accumulate).values["warmup"] == 20
    assert read(f"{text}grad_accumulation_steps: 3\n", below=accumulate).values["warmup"] == 30
    assert read(f"{text}grad_accumulation_steps: 3\n", above={"grad_accumulation_steps": 5}).values["warmup"] == 50


def test_a_schedule_says_which_learning_rate_counts() -> None:
    found = read("learning_rate: 1e-5\nlr_schedule: {name: cosine_decay, arguments: [1e-4, 100]}\n")

    assert found.values["learning_rate"] == 1e-4
    assert found.notes == ("learning_rate is 0.0001, the first of the schedule's arguments, and not 1e-05",)


@pytest.mark.parametrize("key", recipe._WITHOUT_MEANING)
def test_a_key_without_meaning_here_is_named(key: str) -> None:
    found = read(f"{key}: something\n")

    assert found.values == {}
    assert found.notes[0].startswith(f"{key} is ignored: ")


@pytest.mark.parametrize(("size", "limit"), [("2GB", 2e9), ("500M", 5e8), ("1073741824", 2**30)])
def test_the_threshold_of_the_cache_is_its_limit(size: str, limit: float) -> None:
    assert read(f"clear_cache_threshold: {size}\n").values == {"cache_limit": limit / 2**30}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("iters: 3\niters: 4\n", "r.yaml:2: iters stands here again after line 1"),
        ("a: 1\n", "r.yaml:1: a is no setting"),
        ("seed: 1\nitres: 3\n", "r.yaml:2: itres is no setting (did you mean iters?)"),
        ("iters: many\n", "r.yaml:1: iters takes a whole number, not 'many'"),
        ("iters: 2026-01-01\n", "r.yaml:1: iters takes a whole number, not datetime.date(2026, 1, 1)"),
        ("optimizer: adm\n", "r.yaml:1: optimizer takes one of adam, adamw, muon, sgd, adafactor, not 'adm' (did you"),
        ("lora_parameters:\n  rank: 0\n", "r.yaml:2: lora_parameters.rank takes a whole number at least 1"),
        ("lora_parameters: {rank: 8, rank: 9}\n", "r.yaml:1: rank stands here again after line 1"),
        ("lora_parameters: {rnk: 8}\n", "r.yaml:1: lora_parameters has no rnk (did you mean rank?)"),
        ("lora_parameters: {alpha: none}\n", "r.yaml:1: lora_parameters.alpha takes a number, not 'none'"),
        ("use_dora: maybe\n", "r.yaml:1: use_dora takes true or false, not 'maybe'"),
        ("lora_layers: 0\n", "r.yaml:1: lora_layers takes a whole number at least -1 other than 0"),
        ("max_steps: 9\n", "r.yaml:1: max_steps is no setting: iters is the one for that"),
        ("lora-alpha: 9\n", "r.yaml:1: lora_alpha is no setting: lora_scale is the one for that (scale = alpha / rank"),
        ("bf16: true\n", "r.yaml:1: bf16 is no setting: dtype: bfloat16 is the one for that"),
        ("lora_parameters: 8\n", "r.yaml:1: lora_parameters takes a table of settings, not 8"),
        ("lr_schedule: {name: cosine}\n", "r.yaml:1: lr_schedule.name takes one of constant, cosine_decay"),
        ("lr_schedule: {warmup: 3}\n", "r.yaml:1: lr_schedule needs a name, e.g. cosine_decay"),
        ("lr_schedule: {name: cosine_decay, arguments: []}\n", "r.yaml:1: the first of lr_schedule.arguments"),
        ("lr_schedule: {name: cosine_decay, arguments: [x]}\n", "r.yaml:1: lr_schedule.arguments takes a list"),
        ("clear_cache_threshold: lots\n", "r.yaml:1: clear_cache_threshold takes a size such as 2GB, not 'lots'"),
        ("- iters\n", "r.yaml:1: the recipe takes a table of settings, not ['iters']"),
        ("iters: [3\n", "r.yaml:2: not YAML:"),
        ("iters: *x\n", "r.yaml:1: not YAML: found undefined alias"),
        ("iters: !!python/object:os.system 3\n", "r.yaml:1: iters takes a whole number, not '3'"),
    ],
)
def test_a_mistake_is_named_by_its_line(text: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read(text)

    assert raised.value.message.startswith(sentence)


@pytest.mark.parametrize(
    ("text", "values", "notes"),
    [
        ("lora_layers: 8\n", {"num_layers": 8}, ["lora_layers is taken as num_layers: 8"]),
        (
            "num-layers: 4\nlora_layers: 8\n",
            {"num_layers": 4},
            ["lora_layers is ignored: num_layers, its name of today, says 4"],
        ),
        ("use_dora: true\n", {"fine_tune_type": "dora"}, ["use_dora is taken as fine_tune_type: dora"]),
        ("use_dora: false\n", {}, []),
        (
            "lora_parameters: {rank: 4, alpha: 8, scale: 10.0}\n",
            {"lora_rank": 4, "lora_scale": 20.0},
            ["lora_parameters.alpha, of older versions of mlx-lm: lora_scale is 20 (scale 10 × alpha 8 / rank 4)"],
        ),
        (
            "lora_parameters: {alpha: 16}\n",
            {"lora_scale": 2.0},
            ["lora_parameters.alpha, of older versions of mlx-lm: lora_scale is 2 (alpha 16 / rank 8)"],
        ),
        ("batch-size: 2\nlr-schedule: {name: cosine_decay, warmup-init: 1e-6}\n", {"batch_size": 2}, []),
    ],
)
def test_names_of_older_recipes_are_translated_and_that_is_said(
    text: str, values: dict[str, object], notes: list[str]
) -> None:
    found = read(text)

    assert {name: found.values.get(name) for name in values} == values
    assert [note.partition(";")[0] for note in found.notes] == notes


def test_an_older_factor_is_computed_with_the_rank_that_is_trained() -> None:
    text = "lora_parameters: {alpha: 16, scale: 10}\n"

    assert read(text, below={"lora_rank": 16}).values["lora_scale"] == 10.0
    assert read(text, above={"lora_rank": 4}, below={"lora_rank": 16}).values["lora_scale"] == 40.0


def test_several_mistakes_are_named_at_once() -> None:
    with pytest.raises(InvalidData, match=r"^r\.yaml has 3 problems$") as raised:
        read("itres: 3\nbatch_size: 0\nseed: -1\n")

    assert [problem.split(": ")[0] for problem in raised.value.problems] == ["r.yaml:1", "r.yaml:2", "r.yaml:3"]


def test_a_recipe_that_is_not_there_or_no_text_is_named() -> None:
    with pytest.raises(NotFound, match=r"^there is no recipe 'gone\.yaml'$"):
        recipe.read(Path("gone.yaml"))
    Path("r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadRequest, match=r"^the recipe 'r\.yaml' cannot be read: 'utf-8' codec"):
        recipe.read(Path("r.yaml"))


def test_the_adapter_to_go_on_with_is_adopted() -> None:
    assert read("resume_adapter_file: old/adapters.safetensors\n").values == {"adopt": "old/adapters.safetensors"}
