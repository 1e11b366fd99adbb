"""Bad input gets one sentence and a hint before anything is made; odd names and small data work end to end."""

import gzip
import json
import shlex
import shutil
from pathlib import Path

import pytest
from shared_folders import Shared
from tiny_models import made_tiny

from mlxops.config import LoraConfig
from mlxops.config.train import layers_trained
from mlxops.jobs.train.claim import stored_config
from mlxops.jobs.train.prepare import prepare
from mlxops.models.tiny import make_tiny
from mlxops.options import options_of
from mlxops.projects.project import Project


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """The model of the other tests, which has more layers than some of the options here."""
    return made_tiny(shared)


def question(number: int, words: int = 3) -> dict:
    answer = " ".join(["word"] * words)
    return {
        "messages": [
            {"role": "user", "content": f"What is {number}?"},
            {"role": "assistant", "content": f"{answer} {number}."},
        ]
    }


def write_data(path: Path, count: int = 8, words: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(question(number, words)) for number in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def project(tiny_model) -> Path:
    """The current folder with a model and data in it."""
    root = Path.cwd()
    shutil.copytree(tiny_model, root / "models" / "tiny")
    write_data(root / "data" / "train.jsonl")
    write_data(root / "data" / "valid.jsonl", 2)
    return root


def there_is(root: Path) -> list[str]:
    """Everything in a folder but what may be thrown away at any time."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if ".mlxops" not in path.parts)


# bad input ----------------------------------------------------------------------------------------------------------


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


# what works ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_larger_than_the_data_works_with_fewer(project, mlxops):
    code, _, err = mlxops("lora --model tiny --num-layers 2 --batch-size 1000 --iters 2 --name few")

    assert code == 0, err
    assert (project / "adapters" / "few" / "0000002_adapters.safetensors").is_file()


@pytest.mark.slow
def test_a_run_that_diverges_ends_with_1_and_stands_at_its_last_good_checkpoint(project, mlxops):
    schedule = "optimizer: sgd\nlr_schedule: {name: exponential_decay, arguments: [1e-3, 1e9]}\n"
    (project / "recipe.yaml").write_text(schedule)

    code, _, err = mlxops("lora --model tiny --num-layers 2 --iters 20 --save-every 1 --config recipe.yaml --name x")

    rows = json.loads(mlxops("sql 'select iteration, status from checkpoints order by 1' --json")[1])
    run = json.loads(mlxops("sql 'select iteration, status from runs' --json")[1])
    good = [row["iteration"] for row in rows if row["status"] == "whole"]
    assert (code, [row["status"] for row in rows[-2:]]) == (1, ["whole", "corrupt"])
    assert run == [{"iteration": good[-1], "status": "failed"}]
    assert f"goes back to iteration {good[-1]}, the last good checkpoint" in err


@pytest.mark.slow
def test_checkpoints_are_saved_by_the_clock_and_resuming_by_another_is_no_other_run(project, mlxops):
    command = "lora --model tiny --num-layers 2 --val-batches 0 --name x"
    code, _, err = mlxops(f"{command} --iters 3 --save-minutes 1e-6")

    extended, _, said = mlxops(f"{command} --iters 4 --save-minutes 90")

    saved = json.loads(mlxops("sql 'select iteration from checkpoints order by 1' --json")[1])
    assert (code, extended) == (0, 0), err + said
    assert [row["iteration"] for row in saved] == [1, 2, 3, 4]
    assert "save_minutes 1e-06 → 90.0" in said


NAMES = ["with spaces", 'it\'s "quoted"', "größe-日本-👩", "$(echo no);&", "50%"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_paths_with_odd_letters_work_end_to_end(tiny_model, mlxops, monkeypatch, name):
    root = Path.cwd() / name
    shutil.copytree(tiny_model, root / "models" / name)
    write_data(root / f"{name}.jsonl")
    monkeypatch.chdir(root)
    (root / "tasks.py").write_text("from mlxops.tasks import namespace\n")
    arguments = {"--model": name, "--data": f"{name}.jsonl", "--adapter-path": f"out/{name}", "--note": name}
    command = " ".join(f"{option}={shlex.quote(value)}" for option, value in arguments.items())

    code, _, err = mlxops(f"lora --num-layers 2 --iters 2 {command}")
    again, _, _ = mlxops(f"lora --num-layers 2 --iters 2 {command}")

    assert (code, again) == (0, 0), err
    assert (root / "out" / name / "0000002_adapters.safetensors").is_file()
    assert len(list((root / "out" / name).glob("0*_state.safetensors"))) == 1


# what is prepared ---------------------------------------------------------------------------------------------------


def prepared(root: Path, **changed):
    config = LoraConfig(**{"model": "tiny", "num_layers": 2, **changed})
    return prepare(Project(root=root, cwd=root, registry_path=root / "runs.db"), config, lambda *_: None)


def test_what_one_command_was_asked_to_do_is_not_stored(project):
    asked = prepared(project, name="heron", new=True, detach=True, preview=True, json=True, verify_resume=4)

    stored = stored_config(asked, {})

    of_one_command = {each.name for each in options_of(LoraConfig) if each.role == "command"}
    assert of_one_command >= {"preview", "json", "detach", "new", "branch", "adopt", "verify_resume"}
    assert of_one_command & stored.keys() == set()
    assert stored["name"] == "heron"


def test_preparing_writes_nothing_but_a_cache(project):
    before = there_is(project)

    prepared(project)

    assert there_is(project) == before


def test_the_target_in_epochs_is_so_many_passes_over_all_batches(project):
    found = prepared(project, epochs=3, batch_size=3)

    assert (len(found.plan), found.target) == (3, 9)


def test_a_model_of_fewer_than_16_layers_is_trained_in_all_of_them_and_that_is_said(project):
    found, asked = prepared(project, num_layers=None), prepared(project, num_layers=4)

    assert found.config.num_layers == 4
    assert "training all 4 layers of the model" in found.lines
    assert not [line for line in asked.lines if "layers" in line]
    assert found.fingerprint == asked.fingerprint


@pytest.mark.parametrize(("there", "trained"), [(1, 1), (15, 15), (16, 16), (30, 16)])
def test_without_a_number_16_layers_are_trained_or_all_there_are(there, trained):
    assert layers_trained(LoraConfig(), there) == trained
    assert layers_trained(LoraConfig(num_layers=-1), there) == -1


def test_the_usual_number_of_layers_is_refused_where_it_is_given_and_not_there(project, mlxops):
    code, _, err = mlxops("lora --model tiny --num-layers 16 --preview")

    assert (code, mlxops("lora --model tiny --preview")[0]) == (2, 0)
    assert "--num-layers 16 is more than the 4 layers of tiny" in err


def test_the_first_lines_say_what_is_trained(project):
    found = prepared(project)

    share = 100 * found.train.trained_tokens / found.train.total_tokens
    assert found.lines[0] == (
        f"training on the assistant's words: {share:.0f} % of {found.train.total_tokens:,} tokens "
        "(`--no-mask-prompt` for all)"
    )
    assert prepared(project, mask_prompt=False).lines[0].startswith("training on all words: 98 % of ")


def test_rows_of_text_alone_are_said_to_be_trained_whole(project):
    rows = [json.dumps({"text": f"{number} birds are in the tree"}) for number in range(4)]
    (project / "data" / "train.jsonl").write_text("\n".join(rows))

    assert prepared(project).lines[0].startswith("training on all words: ")


def test_rows_that_are_cut_are_told(project):
    file = write_data(project / "data" / "train.jsonl", 3, words=60)
    file.write_text(file.read_text() + json.dumps(question(3, 3)) + "\n")

    notes = prepared(project, max_seq_length=96).notes

    assert any(note.startswith("3 rows are longer than 96 tokens and were cut") for note in notes)


def test_no_validation_is_prepared_where_none_is_asked_for(project):
    assert prepared(project, val_batches=0).validation is None
    assert len(prepared(project).validation.rows) == 2


def test_the_same_project_at_another_place_has_the_same_fingerprint(project, tmp_path):
    shutil.copytree(project, tmp_path / "moved")

    assert prepared(tmp_path / "moved").fingerprint == prepared(project).fingerprint


def test_only_what_is_in_the_data_counts_and_not_its_file(project):
    first = prepared(project)
    shutil.copy(project / "data" / "train.jsonl", project / "other.jsonl")
    (project / "data" / "valid.jsonl").unlink()

    assert prepared(project, data="other.jsonl").data_identity == prepared(project).data_identity
    assert prepared(project).data_identity != first.data_identity


def test_the_same_rows_in_another_file_format_are_the_same_data(project):
    lines = (project / "data" / "train.jsonl").read_bytes()
    rows = [json.loads(line) for line in lines.splitlines()]
    (project / "rows.json").write_text(json.dumps(rows, indent=1))
    (project / "rows.jsonl.gz").write_bytes(gzip.compress(lines))
    (project / "data" / "valid.jsonl").unlink()
    plain = prepared(project)

    for name in ("rows.json", "rows.jsonl.gz"):
        other = prepared(project, data=name)
        assert (other.fingerprint, other.validation_identity) == (plain.fingerprint, plain.validation_identity)


def long_question(number: int) -> str:
    return json.dumps({"prompt": "long " * 200, "completion": f"short {number}"})


def test_validation_rows_that_are_all_cut_away_cost_the_validation_and_not_the_training(project):
    (project / "data" / "valid.jsonl").write_text(f"{long_question(1)}\n{long_question(2)}\n")

    found = prepared(project, max_seq_length=64)

    assert (len(found.train.rows), found.validation, found.validation_identity) == (8, None, None)
    assert found.notes == (
        "no validation: all 2 validation rows have nothing left to compare within 64 tokens; "
        "--max-seq-length 842 takes all of every row",
    )


def test_a_validation_row_that_is_cut_away_is_told_as_one(project):
    with (project / "data" / "valid.jsonl").open("a") as file:
        file.write(long_question(1))

    found = prepared(project, max_seq_length=64)

    assert len(found.validation.rows) == 2
    assert found.notes[-2:] == (
        "1 validation row is longer than 64 tokens and was cut (the longest has 842; --max-seq-length)",
        "1 validation row has nothing left to compare: data/valid.jsonl:3",
    )


@pytest.mark.parametrize(("file", "val_batches"), [("test.jsonl", 25), ("valid.jsonl", 0)])
def test_rows_that_a_training_does_not_use_are_told_and_do_not_stop_it(project, file, val_batches):
    before = prepared(project, val_batches=val_batches).fingerprint
    (project / "data" / file).write_text("{broken\n")

    found = prepared(project, val_batches=val_batches)

    assert found.fingerprint == before
    assert found.notes[0].startswith(f"data/{file} has 1 problem, first data/{file}:1: broken JSON")


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "tokenizer.json"])
def test_a_change_in_a_file_that_decides_is_another_model(project, name):
    before = prepared(project).model_identity
    with (project / "models" / "tiny" / name).open("a") as file:
        file.write("\n")

    assert prepared(project).model_identity != before


# the preview --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_preview_shows_the_trained_words_of_the_first_row_and_as_json_of_three(project, mlxops):
    command = "lora --model tiny --num-layers 2 --iters 2 --preview"

    examples = json.loads(mlxops(f"{command} --json")[1])["examples"]
    plain = " ".join(mlxops(command)[1].split())

    assert [example["origin"] for example in examples] == [f"data/train.jsonl:{line}" for line in (1, 2, 3)]
    assert [example["trained"] for example in examples[:2]] == [
        [f"word word word {number}.<|im_end|>"] for number in (0, 1)
    ]
    assert examples[0]["text"].endswith("<|im_start|>assistant\nword word word 0.<|im_end|>\n")
    assert "trained words data/train.jsonl:1: 'word word word 0.<|im_end|>'" in plain


@pytest.mark.slow
def test_the_preview_shows_the_beginning_and_the_end_of_long_words(project, mlxops):
    write_data(project / "data" / "train.jsonl", 1, words=100)

    plain = mlxops("lora --model tiny --num-layers 2 --iters 2 --preview")[1].split()

    assert plain.count("word") < 50
    assert any("…" in part for part in plain)
    assert "0.<|im_end|>'" in plain
