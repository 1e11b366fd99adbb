"""Bad input gets one sentence and a hint before anything is made."""

import json
from pathlib import Path

import projects_to_train
import pytest
from projects_to_train import long_question, there_is
from shared_folders import Shared
from tiny_models import made_tiny

from mlxops.models.tiny import make_tiny


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """The model of the other tests, which has more layers than some of the options here."""
    return made_tiny(shared)


@pytest.fixture
def project(tiny_model) -> Path:
    """The current folder with a model and data in it."""
    return projects_to_train.fill(Path.cwd(), tiny_model)


def no_model(root):
    return "--model nothing", "no model 'nothing'"


def no_model_given(root):
    return "", "no model given"


def foreign_folder(root):
    (root / "foreign").mkdir()
    return "--model foreign", "has no config.json"


def adapter_for_a_model(root):
    (root / "adapter").mkdir()
    (root / "adapter" / "adapter_config.json").write_text('{"model": "models/tiny"}')
    return "--model adapter", "holds an adapter, not a model"


def model_that_is_a_file(root):
    (root / "model.gguf").write_bytes(b"GGUF")
    return "--model model.gguf", "is a file, not a folder"


def unsupported_architecture(root):
    config = json.loads((root / "models/tiny/config.json").read_text()) | {"model_type": "mindreader"}
    (root / "models/tiny/config.json").write_text(json.dumps(config))
    return "--model tiny", "mlx-lm does not support the architecture 'mindreader'"


def truncated_model(root):
    weights = root / "models/tiny/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    return "--model tiny", "bytes where its header says"


def no_data(root):
    return "--model tiny --data elsewhere", "no data at elsewhere"


def no_training_data(root):
    (root / "data" / "train.jsonl").unlink()
    return "--model tiny", "no train.jsonl in data"


def empty_file(root):
    (root / "data" / "train.jsonl").write_text("")
    return "--model tiny", "data/train.jsonl has no rows"


def blank_lines_alone(root):
    (root / "data" / "train.jsonl").write_text("\n\n \n")
    return "--model tiny", "data/train.jsonl has no rows"


def broken_json(root):
    with (root / "data" / "train.jsonl").open("a") as file:
        file.write('{"messages": [\n')
    return "--model tiny", "data/train.jsonl:9: broken JSON"


def broken_validation(root):
    (root / "data" / "valid.jsonl").write_text("{}\n")
    return "--model tiny", "data/valid.jsonl:1: no known row format"


def other_encoding(root):
    (root / "data" / "train.jsonl").write_bytes('{"text": "Größe"}\n'.encode("latin-1"))
    return "--model tiny", "data/train.jsonl:1: not UTF-8"


def validation_that_the_template_refuses(root):
    turns = [{"role": "tool", "content": "42"}, {"role": "assistant", "content": "so"}]
    (root / "data" / "valid.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    refuse = "{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    turn = "<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n"
    template = f"{{% for m in messages %}}{refuse}{turn}{{% endfor %}}"
    (root / "models/tiny/chat_template.jinja").write_text(template)
    return "--model tiny", "1 of 1 validation rows cannot be used with this model"


def early_stopping_by_rows_that_are_cut_away(root):
    (root / "data" / "valid.jsonl").write_text(long_question(1))
    return (
        "--model tiny --max-seq-length 64 --early-stopping 3",
        "no validation row has anything to compare within 64 tokens",
    )


def unknown_role(root):
    (root / "data" / "train.jsonl").write_text('{"messages": [{"role": "robot", "content": "hi"}]}\n')
    return "--model tiny", "data/train.jsonl:1: turn 1 has the unknown role 'robot'"


def nobody_answers(root):
    (root / "data" / "train.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    return "--model tiny", "data/train.jsonl:1: no turn of the assistant"


def every_row_too_long(root):
    return "--model tiny --max-seq-length 50", "every row is longer than --max-seq-length 50; the longest has "


def nothing_left_to_train(root):
    return "--model tiny --max-seq-length 5", "within 5 tokens no row has a word to train on"


def too_many_layers(root):
    return "--model tiny --num-layers 5", "--num-layers 5 is more than the 4 layers of tiny"


def keys_of_no_layer(root):
    return (
        "--model tiny --num-layers 2 --lora-keys self_attn.q_prj",
        "--lora-keys 'self_attn.q_prj' is no layer of the model",
    )


def optimizer_without_such_an_argument(root):
    (root / "recipe.yaml").write_text("optimizer: adamw\noptimizer_config: {adamw: {wait_decay: 0.1}}\n")
    return "--model tiny --num-layers 2 --config recipe.yaml", "adamw takes"


def optimizer_argument_of_another_kind(root):
    (root / "recipe.yaml").write_text("optimizer_config: {adam: {betas: 7}}\n")
    return "--model tiny --config recipe.yaml", "adam cannot take {'betas': 7}"


def arguments_for_no_optimizer(root):
    (root / "recipe.yaml").write_text("optimizer_config: {adamm: {eps: 1e-8}}\n")
    return "--model tiny --config recipe.yaml", "not 'adamm'"


def number_that_is_none(root):
    (root / "recipe.yaml").write_text("optimizer_config: {adam: {eps: .nan}}\n")
    return "--model tiny --config recipe.yaml", "finite numbers"


def schedule_with_other_arguments(root):
    (root / "recipe.yaml").write_text("lr_schedule: {name: step_decay, arguments: [1e-4, 0.5]}\n")
    return "--model tiny --num-layers 2 --config recipe.yaml", "the schedule step_decay takes decay_rate, step_size"


def adapter_path_that_is_a_file(root):
    (root / "taken").write_text("mine")
    return "--model tiny --adapter-path taken", "--adapter-path 'taken' is a file"


def adapter_path_below_a_file(root):
    (root / "taken").write_text("mine")
    return "--model tiny --adapter-path taken/run", "'taken' is a file"


def adapters_that_is_a_file(root):
    (root / "adapters").write_text("mine")
    return "--model tiny", "'adapters' is a file"


def name_with_a_slash(root):
    return "--model tiny --name a/b", "'a/b' cannot be the name of a run: it has '/'"


def full_training_of_packed_weights(root):
    make_tiny(root / "models" / "packed", quantized=True)
    return "--model packed --fine-tune-type full", "packed is quantized"


BAD = [
    no_model,
    no_model_given,
    foreign_folder,
    adapter_for_a_model,
    model_that_is_a_file,
    unsupported_architecture,
    truncated_model,
    no_data,
    no_training_data,
    empty_file,
    blank_lines_alone,
    broken_json,
    broken_validation,
    other_encoding,
    validation_that_the_template_refuses,
    early_stopping_by_rows_that_are_cut_away,
    unknown_role,
    nobody_answers,
    every_row_too_long,
    nothing_left_to_train,
    too_many_layers,
    keys_of_no_layer,
    optimizer_without_such_an_argument,
    optimizer_argument_of_another_kind,
    arguments_for_no_optimizer,
    number_that_is_none,
    schedule_with_other_arguments,
    adapter_path_that_is_a_file,
    adapter_path_below_a_file,
    adapters_that_is_a_file,
    name_with_a_slash,
    full_training_of_packed_weights,
]


@pytest.mark.slow
@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_input_gets_a_sentence_and_a_hint_and_makes_nothing(project, mlxops, spoil):
    options, said = spoil(project)
    before = there_is(project)

    code, out, err = mlxops(f"lora --num-layers 2 --iters 2 {options}")

    assert (code, out) == (2, "")
    assert said in err
    assert err.splitlines()[-1].startswith("hint: ")
    assert there_is(project) == before


@pytest.mark.parametrize(
    "option",
    [
        "--iters 0",
        "--iters -5",
        "--iters 1e400",
        "--iters nan",
        "--batch-size 0",
        "--learning-rate 0",
        "--learning-rate -1e-5",
        "--learning-rate nan",
        "--learning-rate inf",
        "--lora-rank 0",
        "--lora-dropout 1",
        "--num-layers 0",
        "--num-layers -2",
        "--max-seq-length 1",
        "--save-every 0",
        "--max-grad-norm 0",
        "--seed -1",
        "--batch-size 99999999999999999999",
    ],
)
def test_an_absurd_number_is_refused_by_its_option_and_makes_nothing(project, mlxops, option):
    before = there_is(project)

    code, _, err = mlxops(f"lora --model tiny {option}")

    assert code == 2
    assert f"{option.split()[0]} takes a" in err
    assert there_is(project) == before


def test_all_that_is_wrong_with_the_data_is_said_at_once(project, mlxops):
    (project / "data" / "train.jsonl").write_text('{"text": 1}\n' * 25)
    (project / "data" / "valid.jsonl").write_text("[]x\n")

    _, _, err = mlxops("lora --model tiny --num-layers 2")

    assert err.count("data/train.jsonl:") + err.count("data/valid.jsonl:") == 20
    assert "data cannot be used: 26 problems" in err
    assert "… and 6 more" in err
