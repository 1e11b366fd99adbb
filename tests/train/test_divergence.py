"""A training that cannot continue says why, names the rows, and leaves its last good checkpoint behind."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import training_runs
from safetensors.numpy import load_file, save_file
from shared_folders import Shared
from small_trainings import Heard, adapter_bytes, row, settings, train_small, work
from tiny_models import made_tiny
from training_runs import attempts, lora

from mlxops import registry
from mlxops.errors import Diverged
from mlxops.events import Notice, Skipped, Stopped
from mlxops.models.tokenizer import load_tokenizer
from mlxops.training import batches, checkpoints
from mlxops.training.loop import train
from mlxops.training.objectives import sft
from mlxops.training.objectives.terms import Objective

POISON = "~"


# weights that a step has spoilt --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_model(shared: Shared) -> Path:
    """The model of the other tests, which diverges at the rates of the tests here."""
    return made_tiny(shared)


def diverging(source: Path, folder: Path, stop_at: Any = lambda event: False, **changed: Any) -> tuple[Heard, Diverged]:
    """What was heard of a training that ends by diverging, and how it ends."""
    heard = Heard(stop_at)
    with pytest.raises(Diverged) as diverged:
        train(work(source, folder, settings(**changed)), heard, heard.stop)
    return heard, diverged.value


def growing(rates: float) -> dict[str, Any]:
    """A learning rate that is multiplied by this after each step."""
    return {"optimizer": "sgd", "lr_schedule": "exponential_decay", "lr_schedule_arguments": [rates]}


def offered(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in mx.load(str(folder / "adapters.safetensors")).items()}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon", "sgd", "adafactor"])
def test_weights_so_large_that_the_model_only_guesses_are_noticed_though_the_loss_is_finite(
    tiny_model, tmp_path, optimizer
):
    heard, diverged = diverging(tiny_model, tmp_path, optimizer=optimizer, learning_rate=1e6, iters=9)

    assert {each.reason for each in heard.of(Skipped)} == {"the gradient was zero"}
    assert [each.in_a_row for each in heard.of(Skipped)] == [1, 2, 3, 4, 5]
    assert "the gradient was zero 5 times in a row, up to iteration" in diverged.message
    assert "`--learning-rate`" in diverged.hint
    assert "look at" not in diverged.hint


def test_the_rows_of_every_batch_that_was_left_out_are_named(tiny_model, tmp_path):
    heard, diverged = diverging(tiny_model, tmp_path, learning_rate=1e6, iters=9, batch_size=1)

    for each in heard.of(Skipped):
        assert each.origins[0] in diverged.message


@pytest.mark.slow
@pytest.mark.parametrize("target", [1, 2])
def test_weights_that_the_very_last_update_has_spoilt_do_not_end_as_finished(tiny_model, tmp_path, target):
    heard, diverged = diverging(tiny_model, tmp_path, learning_rate=1e6, iters=target, save_every=1)

    assert heard.events[-1] == Stopped(iteration=0, reason="diverged")
    assert f"nothing can be learnt with the weights after iteration {target}" in diverged.message
    assert "train.jsonl:" in diverged.message
    assert checkpoints.iterations(tmp_path) == []
    assert not (tmp_path / "adapters.safetensors").exists()


def test_an_update_that_makes_weights_infinite_leaves_no_checkpoint_of_them(tiny_model, tmp_path):
    heard, _ = diverging(tiny_model, tmp_path, iters=9, save_every=1, learning_rate=1e-3, **growing(1e44))

    assert heard.of(Skipped) == []
    assert {each.level for each in heard.of(Notice)} <= {"info"}
    assert checkpoints.iterations(tmp_path) == [1]
    assert (tmp_path / "adapters.safetensors").read_bytes() == adapter_bytes(tmp_path, 1)
    assert all(np.isfinite(each).all() for each in offered(tmp_path).values())


def test_a_stop_saves_no_weights_that_are_infinite(tiny_model, tmp_path):
    after_two = {"iters": 9, "save_every": 100, "learning_rate": 1e-3, **growing(1e44)}

    heard, _ = diverging(tiny_model, tmp_path, stop_at=lambda event: getattr(event, "iteration", 0) == 2, **after_two)

    assert heard.events[-1].reason == "diverged"
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.slow
def test_with_keep_last_a_checkpoint_is_tried_before_it_is_written(tiny_model, tmp_path):
    spoiling = {"iters": 9, "save_every": 1, "learning_rate": 1e-3, **growing(1e9)}
    kept, _ = diverging(tiny_model, tmp_path / "kept", keep_last=1, **spoiling)
    all_of_them, _ = diverging(tiny_model, tmp_path / "all", **spoiling)

    spoilt = [each.iteration for each in all_of_them.of(Notice) if each.kind == "spoilt"]
    assert len(spoilt) == 1
    assert kept.of(Skipped) == []
    assert checkpoints.iterations(tmp_path / "kept")[0] == checkpoints.iterations(tmp_path / "all")[0] == spoilt[0] - 1


@pytest.mark.slow
def test_trying_checkpoints_trains_the_same_weights(tiny_model, tmp_path):
    config = {"iters": 7, "save_every": 1, "lora_dropout": 0.2, "grad_accumulation_steps": 3, "max_grad_norm": 0.1}
    train_small(tiny_model, tmp_path / "tried", settings(**config, keep_last=1))

    train_small(tiny_model, tmp_path / "all", settings(**config))

    assert adapter_bytes(tmp_path / "tried", 7) == adapter_bytes(tmp_path / "all", 7)


@pytest.mark.slow
def test_a_batch_with_nothing_to_learn_is_no_divergence(tiny_model, tmp_path):
    def nothing(score, batch):
        return {"loss": score(batch).sum(axis=1) * 0}

    objective = Objective(terms=nothing, weights=sft.weights)
    heard = train_small(tiny_model, tmp_path, settings(iters=8), objective=objective)

    assert heard.of(Skipped) == []
    assert heard.stopped.reason == "finished"


# through the front door ----------------------------------------------------------------------------------------------

ABSURD = (
    *("--model", "tiny", "--name", "run", "--iters", "20", "--num-layers", "2", "--batch-size", "2"),
    *("--save-every", "1", "--steps-per-report", "1", "--steps-per-eval", "50", "--config", "recipe.yaml"),
)
"""The learning rate is multiplied by 1e9 after each step: the first two updates do no harm, the third spoils all."""


def make_project(folder: Path, model: Path) -> Path:
    made = training_runs.make_project(folder, model)
    recipe = "optimizer: sgd\nlr_schedule: {name: exponential_decay, arguments: [1e-9, 1e9]}\n"
    (made / "recipe.yaml").write_text(recipe)
    return made


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project to train in."""
    return make_project(tmp_path / "trained", tiny_model)


@pytest.fixture
def diverged(shared: Shared, tiny_model: Path, tmp_path: Path) -> Path:
    """A project whose run diverged, with its exit code and what it said."""

    def train(folder: Path) -> None:
        ended = lora(make_project(folder / "project", tiny_model), *ABSURD)
        (folder / "project" / "ended.json").write_text(json.dumps([ended.code, ended.said]))

    return training_runs.copy_project(shared("diverged", train) / "project", tmp_path / "diverged")


def rows_of(project: Path) -> tuple[dict[str, Any], dict[int, str], list[dict[str, Any]]]:
    """The run, the status of each of its checkpoints, and its events."""
    with registry.open_read_only(project / "runs.db") as db:
        run = registry.find_run(db, "run")
        status = {row["iteration"]: row["status"] for row in registry.checkpoints_of(db, run["id"])}
        return run, status, registry.events_of(db, run["id"])


@pytest.mark.slow
def test_an_absurd_learning_rate_ends_with_a_sentence_and_a_finite_adapter(diverged: Path) -> None:
    ended = training_runs.Ended(*json.loads((diverged / "ended.json").read_text()))

    run, status, events = rows_of(diverged)
    folder = diverged / "adapters" / "run"
    assert (ended.code, run["status"], run["iteration"]) == (1, "failed", 2)
    assert status == {1: "whole", 2: "whole", 3: "corrupt"}
    assert "(rows data/train.jsonl:" in ended.said
    assert "the run goes back to iteration 2, the last good checkpoint" in ended.said
    assert "hint: a smaller `--learning-rate`" in ended.said
    assert [each["iteration"] for each in events if each["kind"] == "skipped"] == [4, 5, 6, 7, 8]
    assert (folder / "adapters.safetensors").read_bytes() == adapter_bytes(folder, 2)
    assert all(np.isfinite(each).all() for each in offered(folder).values())
    assert attempts(diverged, "run")[-1]["end_reason"] == "diverged"


@pytest.mark.slow
def test_a_learning_rate_of_a_million_ends_with_1_and_offers_nothing(project: Path) -> None:
    ended = lora(project, *training_runs.RUN, "--learning-rate", "1e6", "--save-every", "1")

    run, status, _ = rows_of(project)
    assert (ended.code, run["status"]) == (1, "failed")
    assert all(np.isfinite(each).all() for each in offered(project / "adapters" / "run").values())
    assert set(status.values()) <= {"whole", "corrupt"}


@pytest.mark.slow
def test_the_same_command_after_a_divergence_says_so_and_comes_to_the_same_end(diverged: Path) -> None:
    code, said = json.loads((diverged / "ended.json").read_text())
    before = training_runs.contents(diverged / "adapters" / "run", "*[0-9]_*.safetensors")

    again = lora(diverged, *ABSURD)

    assert (code, again.code) == (1, 1)
    assert "warning: it diverged when it last came this way" in again.said
    assert said.splitlines()[-2:] == again.said.splitlines()[-2:]
    assert [each["from_iteration"] for each in attempts(diverged, "run")] == [0, 2]
    assert training_runs.contents(diverged / "adapters" / "run", "*[0-9]_*.safetensors") == before


@pytest.mark.slow
def test_weights_spoilt_by_the_last_update_are_a_failed_run(project: Path) -> None:
    ended = lora(project, *ABSURD, "--iters", "3", "--val-batches", "0")

    run, status, _ = rows_of(project)
    assert (ended.code, run["status"], run["iteration"]) == (1, "failed", 2)
    assert status == {1: "whole", 2: "whole"}
    assert "nothing can be learnt with the weights after iteration 3 (rows data/train.jsonl:" in ended.said


@pytest.mark.slow
def test_a_divergence_that_was_killed_on_its_way_comes_to_the_same_end(project: Path) -> None:
    # before the weights are spoilt, as they first are, and on the last of the steps that decide
    for step in (2, 4, 5):
        killed = lora(
            project, *ABSURD, first=partial(training_runs.signal_itself, signal.SIGKILL, training_runs.STEP, step)
        )
        assert killed.code == -signal.SIGKILL, killed.said
    lora(project, *ABSURD)

    run, status, _ = rows_of(project)
    assert (run["status"], run["iteration"]) == ("failed", 2)
    assert status == {1: "whole", 2: "whole", 3: "corrupt"}


# rows that the numbers cannot hold -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def half_precision_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with one token whose embedding float32 holds and float16 does not."""
    folder = tmp_path_factory.mktemp("models") / "half"
    shutil.copytree(tiny_model, folder)
    token = load_tokenizer(folder).encode(POISON, add_special_tokens=False)[-1]
    arrays = load_file(folder / "model.safetensors")
    # with an output layer of its own, so that only rows with the token are concerned
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"].copy()
    arrays["model.embed_tokens.weight"][token] = 1e5
    save_file(arrays, folder / "model.safetensors", metadata={"format": "mlx"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


HALF = (
    *("--model", "tiny", "--name", "run", "--dtype", "float16", "--batch-size", "1", "--num-layers", "2"),
    *("--iters", "12", "--save-every", "1", "--steps-per-report", "1", "--learning-rate", "1e-3", "--val-batches", "0"),
)


def poisoned_from(iteration: int, model: Path, folder: Path, last: int = 12) -> tuple[Path, list[int]]:
    """A project whose rows come one a batch, poisoned from an iteration to another; and the lines of those."""
    order = batches.plan([row(number, 12) for number in range(12)], batch_size=1, seed=0)
    poisoned = [int(order.batch(each).origins[0].split(":")[1]) for each in range(iteration, last + 1)]
    project = training_runs.make_project(folder, model)
    lines = []
    for line in range(1, 13):
        said = f"It is {line + 40}{POISON if line in poisoned else '.'}"
        turns = [{"role": "user", "content": f"And {line + 20}?"}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"messages": turns}) + "\n")
    (project / "data" / "train.jsonl").write_text("".join(lines))
    return project, poisoned


@pytest.mark.slow
def test_a_row_that_half_precision_cannot_hold_is_left_out_and_named(
    half_precision_model: Path, tmp_path: Path
) -> None:
    project, (line,) = poisoned_from(4, half_precision_model, tmp_path / "trained", last=4)

    ended = lora(project, *HALF)

    run, _, events = rows_of(project)
    (skipped,) = [each for each in events if each["kind"] == "skipped"]
    assert (ended.code, run["status"]) == (0, "completed"), ended.said
    assert (skipped["iteration"], skipped["detail"]["origins"]) == (4, [f"data/train.jsonl:{line}"])
    assert all(np.isfinite(each).all() for each in offered(project / "adapters" / "run").values())


@pytest.mark.slow
def test_rows_that_half_precision_cannot_hold_are_no_divergence_in_single_precision(
    half_precision_model: Path, tmp_path: Path
) -> None:
    project, _ = poisoned_from(4, half_precision_model, tmp_path / "trained")

    ended = lora(project, *HALF, "--dtype", "float32")

    assert ended.code == 0, ended.said
    assert [each for each in rows_of(project)[2] if each["kind"] == "skipped"] == []


@pytest.mark.slow
def test_a_run_without_a_single_update_is_failed_and_not_completed(half_precision_model: Path, tmp_path: Path) -> None:
    project, _ = poisoned_from(1, half_precision_model, tmp_path / "trained")

    ended = lora(project, *HALF, "--iters", "3")

    run, status, events = rows_of(project)
    assert (ended.code, run["status"], run["iteration"], status) == (1, "failed", 0, {})
    assert "nothing was learnt: no optimizer update was applied in 3 iterations" in ended.said
    assert [each["iteration"] for each in events if each["kind"] == "skipped"] == [1, 2, 3]
    assert not (project / "adapters" / "run" / "adapters.safetensors").exists()


@pytest.mark.slow
def test_poisoned_rows_in_a_row_end_a_run_at_the_checkpoint_before_them(
    half_precision_model: Path, tmp_path: Path
) -> None:
    project, lines = poisoned_from(5, half_precision_model, tmp_path / "trained")

    ended = lora(project, *HALF)

    run, status, _ = rows_of(project)
    folder = project / "adapters" / "run"
    named = ", ".join(f"data/train.jsonl:{line}" for line in reversed(lines[:5]))
    assert (ended.code, run["status"], run["iteration"]) == (1, "failed", 4)
    assert f"5 times in a row, up to iteration 9 (rows {named}); the run goes back to iteration 4" in ended.said
    assert f"hint: look at data/train.jsonl:{lines[4]} and the rows beside it" in ended.said
    assert status == dict.fromkeys([1, 2, 3, 4], "whole")
    assert (folder / "adapters.safetensors").read_bytes() == adapter_bytes(folder, 4)


@pytest.mark.slow
def test_with_the_rows_mended_the_same_command_trains_them(half_precision_model: Path, tmp_path: Path) -> None:
    project, _ = poisoned_from(5, half_precision_model, tmp_path / "trained")
    options = [option for option in HALF if option not in ("--name", "run")]
    lora(project, *options)
    train_file = project / "data" / "train.jsonl"
    train_file.write_text(train_file.read_text().replace(POISON, "."))

    mended = lora(project, *options)

    assert mended.code == 0, mended.said
