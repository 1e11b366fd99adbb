"""Another objective in the same loop: preferences between two answers train, validate and resume as rows do."""

from dataclasses import replace

import numpy as np
import numpy_llama
import pytest
from dpo import Pair, collate, dpo, with_reference
from small_trainings import adapter_bytes, after_step, model_of, row, settings, train_small, weights_of

from mlxops import registry
from mlxops.events import OF_THE_CLOCK, Report, Skipped, Stopped, Validation
from mlxops.registry.away import Writer
from mlxops.registry.recorder import Recorder
from mlxops.training import batches

BETA = 0.1


def pairs_of(model, count=7, offset=0):
    """Pairs of unlike length, with what the model thinks of them."""
    made = [
        Pair(
            chosen=row(2 * number, 12 + 5 * number % 31),
            rejected=row(2 * number + 1, 10 + 7 * number % 29),
            origin=f"pairs.jsonl:{number + 1}",
        )
        for number in range(offset, offset + count)
    ]
    return with_reference(model, made)


def preferring(tiny_model, config, change=lambda pairs: pairs):
    """What makes a small training one of preferences."""
    model = model_of(tiny_model, config)
    trained, held_out = change(pairs_of(model)), pairs_of(model, count=5, offset=20)
    return {
        "model": model,
        "objective": dpo(BETA),
        "plan": batches.plan(trained, batch_size=config.batch_size, seed=0, collate=collate),
        "validation": batches.fixed_batches(held_out, batch_size=2, count=-1, seed=0, collate=collate),
    }


def curves(heard):
    """All reports and validations, without what a clock or the allocator says."""
    reports = [
        (each.iteration, {name: value for name, value in each.metrics.items() if name not in OF_THE_CLOCK})
        for each in heard.of(Report)
    ]
    return reports + [(each.iteration, each.loss, each.standard_error, each.metrics) for each in heard.of(Validation)]


@pytest.mark.slow
def test_the_loss_is_that_of_numpy(tiny_model, tmp_path):
    config = settings(iters=8)
    made = preferring(tiny_model, config)
    base = weights_of(made["model"])

    last = train_small(tiny_model, tmp_path, config, **made).of(Validation)[-1]

    losses, rewards = [], {}
    for batch in made["validation"]:
        for side in ("chosen", "rejected"):
            tokens, mask = batch.arrays[f"{side}.tokens"], batch.arrays[f"{side}.mask"]
            now, before = (
                -numpy_llama.row_losses(weights, tokens, mask, scale=2.0)
                for weights in (weights_of(made["model"]), base)
            )
            rewards[side] = now - before
        losses.extend(-np.log(1 / (1 + np.exp(-BETA * (rewards["chosen"] - rewards["rejected"])))))
    assert (last.iteration, last.rows) == (8, 5)
    assert last.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert last.standard_error == pytest.approx(np.std(losses, ddof=1) / np.sqrt(5), rel=1e-3)
    assert abs(last.loss - np.log(2)) > 1e-2


@pytest.mark.slow
def test_the_first_loss_is_the_logarithm_of_2(tiny_model, tmp_path):
    config = settings(iters=1)

    heard = train_small(tiny_model, tmp_path, config, **preferring(tiny_model, config))

    assert heard.losses == [pytest.approx(np.log(2), abs=1e-5)]
    assert heard.of(Validation)[0].loss == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.slow
def test_training_learns_which_answers_are_preferred(tiny_model, tmp_path):
    config = settings(iters=32, steps_per_report=4, batch_size=7, learning_rate=3e-2)

    heard = train_small(tiny_model, tmp_path, config, **preferring(tiny_model, config))

    last = heard.of(Report)[-1].metrics
    assert last["train_loss"] < 0.55
    assert (last["reward_accuracy"], last["reward_margin"] > 0.3) == (1.0, True)


@pytest.mark.slow
def test_an_interruption_changes_no_bit(tiny_model, tmp_path):
    config = settings(iters=11, lora_dropout=0.1, grad_accumulation_steps=3, steps_per_report=4, steps_per_eval=5)
    straight = train_small(tiny_model, tmp_path / "straight", config, **preferring(tiny_model, config))

    stopped = train_small(tiny_model, tmp_path / "run", config, **preferring(tiny_model, config), stop_at=after_step(7))
    resumed = train_small(tiny_model, tmp_path / "run", config, **preferring(tiny_model, config))

    assert stopped.stopped == Stopped(iteration=7, reason="signal", signal_name="SIGTERM")
    assert adapter_bytes(tmp_path / "run", 11) == adapter_bytes(tmp_path / "straight", 11)
    assert sorted(curves(stopped) + curves(resumed), key=str) == sorted(curves(straight), key=str)


@pytest.mark.slow
def test_a_pair_that_is_not_finite_is_left_out_and_named(tiny_model, tmp_path):
    config = settings(iters=4, batch_size=1)
    made = preferring(tiny_model, config, lambda pairs: [replace(pairs[0], reference=np.inf), *pairs[1:4]])

    (skipped,) = train_small(tiny_model, tmp_path, config, **made).of(Skipped)

    assert (skipped.reason, skipped.origins) == ("the loss was not finite", ("pairs.jsonl:1",))


@pytest.mark.slow
def test_metrics_of_an_objective_are_recorded_like_the_others(tiny_model, tmp_path):
    config = settings(iters=4)
    heard = train_small(tiny_model, tmp_path / "run", config, **preferring(tiny_model, config))

    with registry.open_registry(tmp_path / "runs.db") as db:
        about = dict.fromkeys(("fingerprint", "model", "model_identity", "data", "data_identity"), "x")
        run = registry.create_run(
            db, name="run", kind="lora", config={}, target_iterations=4, adapter_path=None, **about
        )
        attempt = registry.start_attempt(
            db, run.id, start_kind="fresh", from_iteration=0, trained_tokens=0, target_iterations=4, device="cpu",
            environment={}, command="",
        )  # fmt: skip
        record = Recorder(Writer(db, run.id, attempt), saved_at=0)
        for event in heard.events:
            record(event)
        found = db.rows("SELECT iteration, value FROM metric WHERE name = 'reward_margin' ORDER BY 1")
        validated = db.rows("SELECT iteration FROM metric WHERE name = 'validation_reward_accuracy' ORDER BY 1")

    assert [(each["iteration"], each["value"]) for each in found] == [
        (each.iteration, each.metrics["reward_margin"]) for each in heard.of(Report)
    ]
    assert [each["iteration"] for each in validated] == [0, 3, 4]
