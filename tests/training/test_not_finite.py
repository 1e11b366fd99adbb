"""What is not finite never reaches the weights, is named by its rows, and ends a run at its last good checkpoint."""

import mlx.core as mx
import numpy as np
import pytest
from small_trainings import (
    Heard,
    MinutePerStep,
    adapter_bytes,
    model_of,
    plain_gradient,
    row,
    rows,
    settings,
    train_small,
    trained_weights,
    work,
)

from mlxops.errors import Diverged, Failed
from mlxops.events import Notice, Saved, Skipped, Step, Stopped
from mlxops.rows import TokenRow
from mlxops.training import batches, checkpoints
from mlxops.training.batches import collate
from mlxops.training.loop import GIVE_UP_AFTER, train
from mlxops.training.objectives import sft
from mlxops.training.objectives.terms import Objective

POISON = 1  # a token that no other row has


def poisoned(number: int, length: int = 12) -> TokenRow:
    tokens = row(number, length).tokens.copy()
    tokens[0] = POISON
    return TokenRow(tokens=tokens, spans=((4, length),), origin=f"train.jsonl:{number + 1}")


def has_poison(tokens: mx.array) -> mx.array:
    return (tokens == POISON).any(axis=1)


def changed(change) -> Objective:
    """Supervised training with losses that depend on which rows are poisoned."""

    def terms(score, batch):
        return {"loss": change(sft.terms(score, batch)["loss"], has_poison(batch["tokens"]))}

    return Objective(terms=terms, weights=sft.weights)


nan_loss = changed(lambda losses, is_poisoned: mx.where(is_poisoned, mx.nan, losses))
nan_everywhere = changed(lambda losses, is_poisoned: losses * mx.where(is_poisoned, mx.inf, 1.0))
nan_gradient = changed(lambda losses, is_poisoned: losses + mx.sqrt(mx.where(is_poisoned, losses * 0, 1.0)))
no_loss = changed(lambda losses, is_poisoned: mx.where(is_poisoned, 0.0, losses))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (nan_loss, "the loss was not finite"),
        (nan_everywhere, "the loss was not finite"),
        (nan_gradient, "the gradient was not finite"),
    ],
)
def test_a_row_that_is_not_finite_never_reaches_the_weights_and_is_named(tiny_model, tmp_path, objective, reason):
    config = settings(iters=6, batch_size=1, optimizer="sgd", learning_rate=0.1)
    mixed = [*rows(4), poisoned(4)]
    without = train_small(tiny_model, tmp_path / "without", config, rows=mixed, objective=no_loss)

    heard = train_small(tiny_model, tmp_path / "with", config, rows=mixed, objective=objective)

    (skipped,) = heard.of(Skipped)
    assert (skipped.reason, skipped.origins, skipped.in_a_row) == (reason, ("train.jsonl:5",), 1)
    assert heard.losses[skipped.iteration - 1] is None
    here, other = (mx.load(str(tmp_path / name / "adapters.safetensors")) for name in ("with", "without"))
    expected_losses = [None if i == skipped.iteration - 1 else loss for i, loss in enumerate(without.losses)]
    offset = 1.0 if objective is nan_gradient else 0.0
    tokens = [step.tokens for step in heard.of(Step)]
    assert heard.losses == [
        None if loss is None else pytest.approx(loss + offset / count, rel=1e-5)
        for loss, count in zip(expected_losses, tokens, strict=True)
    ]
    assert all(np.isfinite(np.array(value)).all() for value in here.values())
    for name, value in other.items():
        np.testing.assert_allclose(np.array(here[name]), np.array(value), atol=1e-6)


@pytest.mark.slow
def test_a_poisoned_batch_leaves_the_rest_of_its_group_with_their_own_weight(tiny_model, tmp_path):
    config = settings(iters=3, batch_size=1, grad_accumulation_steps=3, optimizer="sgd", learning_rate=1.0)
    good, model = [row(0, 8), row(1, 40)], model_of(tiny_model, config)
    before, gradient = trained_weights(model), plain_gradient(model, [collate([each]) for each in good])

    train_small(tiny_model, tmp_path, config, rows=[*good, poisoned(2)], objective=nan_loss)

    after = mx.load(str(tmp_path / "adapters.safetensors"))
    for name, each in gradient.items():
        np.testing.assert_allclose(before[name] - np.array(after[name]), each, atol=1e-6)


@pytest.mark.slow
def test_a_group_of_nothing_but_poison_makes_no_update(tiny_model, tmp_path):
    config = settings(iters=4, batch_size=1, grad_accumulation_steps=2)

    train_small(tiny_model, tmp_path, config, rows=poisoned_from(3, count=4), objective=nan_loss)

    counters = checkpoints.newest(tmp_path)[0].counters
    assert (counters.updates, counters.skipped_in_a_row) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_a_training_without_a_single_update_fails_and_offers_nothing(tiny_model, tmp_path, accumulated):
    config = settings(iters=2, batch_size=1, save_every=1, grad_accumulation_steps=accumulated)

    with pytest.raises(Failed, match="no optimizer update was applied in 2 iterations") as failed:
        train_small(tiny_model, tmp_path / "run", config, rows=[poisoned(0), poisoned(1)], objective=nan_loss)

    assert failed.value.hint.startswith("`inv run.show r` names the batches")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_a_training_that_stops_early_without_a_single_update_fails(tiny_model, tmp_path):
    config = settings(iters=9, batch_size=1, steps_per_eval=1, early_stopping=2, grad_accumulation_steps=9)

    with pytest.raises(Failed, match="no optimizer update was applied in 2 iterations"):
        train_small(tiny_model, tmp_path, config, validation_rows=rows(2))


@pytest.mark.slow
def test_an_update_of_the_closing_alone_is_enough(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(iters=2, grad_accumulation_steps=3))

    assert heard.stopped.reason == "finished"


def poisoned_from(iteration: int, count: int = 12) -> list[TokenRow]:
    """Rows that come one a batch, poisoned from an iteration on."""
    order = batches.plan([row(number, 12) for number in range(count)], batch_size=1, seed=0)
    places = {int(order.batch(each).origins[0].split(":")[1]) - 1: each for each in range(1, count + 1)}
    return [poisoned(number) if places[number] >= iteration else row(number, 12) for number in range(count)]


@pytest.mark.slow
def test_the_clock_saves_nothing_while_updates_are_skipped(tiny_model, tmp_path):
    config = settings(iters=8, batch_size=1, save_every=100, save_minutes=3)
    healthy_until_5 = poisoned_from(5, count=8)
    mixed = [
        row(number, 12) if healthy_until_5[number].tokens[0] == POISON else each
        for number, each in enumerate(poisoned_from(3, count=8))
    ]
    clock = MinutePerStep()

    heard = train_small(tiny_model, tmp_path, config, rows=mixed, objective=nan_loss, stop_at=clock.hear, now=clock)

    assert [each.iteration for each in heard.of(Skipped)] == [3, 4]
    assert [each.iteration for each in heard.of(Saved)] == [5, 8]


@pytest.mark.slow
def test_a_run_gives_up_after_several_in_a_row_and_goes_back_to_the_checkpoint_before(tiny_model, tmp_path):
    config = settings(iters=12, batch_size=1, save_every=1)
    mixed = poisoned_from(5)

    with pytest.raises(Diverged, match="5 times in a row, up to iteration 9") as diverged:
        train_small(tiny_model, tmp_path, config, rows=mixed, objective=nan_loss)

    assert GIVE_UP_AFTER == 5
    assert "goes back to iteration 4" in diverged.value.message
    assert "train.jsonl:" in diverged.value.hint
    assert checkpoints.iterations(tmp_path) == [4, 3, 2, 1]
    assert (tmp_path / "adapters.safetensors").read_bytes() == adapter_bytes(tmp_path, 4)


@pytest.mark.slow
def test_a_run_that_is_not_finite_from_the_start_has_no_checkpoint(tiny_model, tmp_path):
    config, nothing_good = settings(iters=9, batch_size=1, save_every=1), [poisoned(number) for number in range(3)]

    with pytest.raises(Diverged, match="has no checkpoint from before"):
        train_small(tiny_model, tmp_path / "run", config, rows=nothing_good, objective=nan_loss)

    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_a_finite_batch_between_poisoned_ones_starts_the_count_again(tiny_model, tmp_path):
    config = settings(iters=12, batch_size=1)
    mixed = [*(row(number, 12) for number in range(3)), *(poisoned(number) for number in range(3, 6))]

    heard = train_small(tiny_model, tmp_path, config, rows=mixed, objective=nan_loss)

    assert len(heard.of(Skipped)) == 6
    assert heard.stopped.reason == "finished"


def spoil(source, folder, config) -> list:
    """Train until it is given up; returns what was heard."""
    heard = Heard()
    with pytest.raises(Diverged):
        train(work(source, folder, config), heard, heard.stop)
    return heard


EXPLODING = {"optimizer": "sgd", "lr_schedule": "exponential_decay", "lr_schedule_arguments": [1e9], "save_every": 1}


@pytest.mark.slow
def test_weights_that_an_update_has_spoilt_are_not_what_a_run_goes_back_to(tiny_model, tmp_path):
    heard = spoil(tiny_model, tmp_path, settings(iters=20, learning_rate=1e-3, **EXPLODING))

    good, spoilt = checkpoints.iterations(tmp_path)[0], heard.of(Skipped)[0].iteration - 1
    assert good == spoilt - 1
    assert heard.events[-1] == Stopped(iteration=good, reason="diverged")
    assert [event.iteration for event in heard.of(Notice) if event.kind == "spoilt"] == [spoilt]
    assert (tmp_path / "adapters.safetensors").read_bytes() == adapter_bytes(tmp_path, good)


@pytest.mark.slow
def test_a_checkpoint_that_a_signal_made_of_spoilt_weights_is_no_way_back_either(tiny_model, tmp_path):
    config = settings(iters=20, learning_rate=1e-3, **EXPLODING)
    stopped = train_small(tiny_model, tmp_path, config, stop_at=lambda event: isinstance(event, Skipped))
    assert checkpoints.iterations(tmp_path)[0] == stopped.stopped.iteration

    spoil(tiny_model, tmp_path, config)

    assert checkpoints.iterations(tmp_path)[0] == stopped.stopped.iteration - 2


@pytest.mark.slow
def test_a_run_spoilt_by_its_first_update_offers_nothing(tiny_model, tmp_path):
    config = settings(iters=20, optimizer="sgd", learning_rate=1e30, save_every=1)

    heard = spoil(tiny_model, tmp_path, config)

    assert heard.events[-1] == Stopped(iteration=0, reason="diverged")
    assert not (tmp_path / "adapters.safetensors").exists()
    assert checkpoints.iterations(tmp_path) == []
