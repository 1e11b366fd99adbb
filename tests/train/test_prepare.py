"""What a training is made of before it begins; odd names and small data work end to end."""

import gzip
import json
import shlex
import shutil
from pathlib import Path

import projects_to_train
import pytest
from projects_to_train import long_question, question, there_is, write_data
from shared_folders import Shared
from tiny_models import made_tiny

from mlxops.config import LoraConfig
from mlxops.config.train import layers_trained
from mlxops.jobs.train.claim import stored_config
from mlxops.jobs.train.prepare import prepare
from mlxops.options import options_of
from mlxops.projects.project import Project


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """The model of the other tests, which has more layers than some of the options here."""
    return made_tiny(shared)


@pytest.fixture
def project(tiny_model) -> Path:
    """The current folder with a model and data in it."""
    return projects_to_train.fill(Path.cwd(), tiny_model)


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
