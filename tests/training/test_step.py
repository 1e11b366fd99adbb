"""One step is what the formulas say: gradients, updates, accumulation, clipping and the standard error."""

import mlx.core as mx
import numpy as np
import numpy_llama
import pytest
from small_trainings import (
    model_of,
    plain_gradient,
    row,
    rows,
    settings,
    train_small,
    trained_weights,
    trainer,
    weights_of,
)

from mlxops.training.batches import collate, plan
from mlxops.training.step import ratio


def one_update(trainer, *groups, learning_rate=1.0):
    """One update over batches of rows, weighted by their tokens."""
    made = [collate(group) for group in groups]
    weights = {"loss": sum(batch.trained for batch in made)}
    for batch in made:
        trainer.accumulate(batch, weights)
    trainer.update(learning_rate, weights)
    return trained_weights(trainer.model)


def difference(first, other):
    return max(float(np.abs(first[name] - other[name]).max()) for name in first)


def norm(gradient):
    return float(np.sqrt(sum(np.square(each.astype(np.float64)).sum() for each in gradient.values())))


# gradients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_gradient_is_the_slope_of_the_loss_that_numpy_computes(tiny_model, tmp_path, kind):
    config = settings(optimizer="sgd", fine_tune_type=kind, num_layers=1)
    here = trainer(tiny_model, tmp_path, config)
    one_update(here, rows(2), learning_rate=0.05)
    before, batch = weights_of(here.model), collate(rows(3))

    after = one_update(here, rows(3))

    gradient = {name: before[name] - after[name] for name in after}
    direction = {name: np.random.default_rng(0).standard_normal(each.shape) for name, each in gradient.items()}
    losses = [
        numpy_llama.row_losses(
            {**before, **{name: before[name] + side * 1e-5 * direction[name] for name in direction}},
            batch.arrays["tokens"],
            batch.arrays["mask"],
            scale=2.0,
        ).sum()
        / batch.trained
        for side in (1.0, -1.0)
    ]
    expected = (losses[0] - losses[1]) / 2e-5
    assert sum((gradient[name] * direction[name]).sum() for name in gradient) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_the_first_losses_and_weights_are_those_of_adam_written_out(tiny_model, tmp_path):
    config = settings(iters=4, learning_rate=1e-2)
    model, batches = model_of(tiny_model, config), plan(rows(), batch_size=2, seed=0)
    losses, first, second = [], {}, {}
    for iteration in range(1, 5):
        batch = batches.batch(iteration)
        weights = weights_of(model)
        tokens, mask = batch.arrays["tokens"], batch.arrays["mask"]
        losses.append(numpy_llama.row_losses(weights, tokens, mask, scale=2.0).sum() / batch.trained)
        for name, gradient in plain_gradient(model, [batch]).items():
            first[name] = 0.9 * first.get(name, 0.0) + 0.1 * gradient
            second[name] = 0.999 * second.get(name, 0.0) + 0.001 * np.square(gradient)
            weights[name] = weights[name] - 1e-2 * first[name] / (np.sqrt(second[name]) + 1e-8)
        model.load_weights([(name, mx.array(weights[name])) for name in first], strict=False)

    heard = train_small(tiny_model, tmp_path, config)

    assert heard.losses == pytest.approx(losses, rel=1e-5)
    written = mx.load(str(tmp_path / "adapters.safetensors"))
    assert difference({name: np.array(each) for name, each in written.items()}, trained_weights(model)) < 1e-4


def test_the_losses_of_the_first_steps_are_these(tiny_model, tmp_path):
    heard = train_small(tiny_model, tmp_path, settings(iters=4))

    assert heard.losses == pytest.approx([5.963974, 5.945156, 5.989599, 5.976158], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon", "sgd", "adafactor"])
def test_an_update_is_what_mlx_alone_makes_of_the_plain_gradient(tiny_model, tmp_path, optimizer, kind):
    config = settings(optimizer=optimizer, fine_tune_type=kind)
    here, model = trainer(tiny_model, tmp_path, config), model_of(tiny_model, config)
    other = _optimizer_of_mlx(optimizer)
    for count in (2, 3):
        gradient = plain_gradient(model, [collate(rows(count))])
        _apply(other, model, gradient)

        found = one_update(here, rows(count), learning_rate=1e-2)

    assert difference(found, trained_weights(model)) < 1e-4


def _optimizer_of_mlx(name):
    import mlx.optimizers as optim

    return {
        "adam": lambda: optim.Adam(1e-2),
        "adamw": lambda: optim.AdamW(1e-2),
        "muon": lambda: optim.Muon(1e-2),
        "sgd": lambda: optim.SGD(1e-2),
        "adafactor": lambda: optim.Adafactor(1e-2, relative_step=False, scale_parameter=False),
    }[name]()


def _apply(optimizer, model, gradient):
    from mlx.utils import tree_unflatten

    optimizer.update(model, tree_unflatten([(name, mx.array(each)) for name, each in gradient.items()]))


# accumulation -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_three_batches_of_two_rows_make_the_update_of_one_batch_of_six(tiny_model, tmp_path):
    config, six = settings(optimizer="sgd"), [row(number, 5 + 6 * number) for number in range(6)]
    apart = one_update(trainer(tiny_model, tmp_path, config), six[:2], six[2:4], six[4:])

    together = one_update(trainer(tiny_model, tmp_path, config), six)

    assert difference(apart, together) < 1e-6


def test_every_token_of_a_group_weighs_the_same_however_long_its_batch(tiny_model, tmp_path):
    config = settings(optimizer="sgd")
    short, long = [row(1, 5)], [row(2, 90)]
    gradient = plain_gradient(model_of(tiny_model, config), [collate(short), collate(long)])
    before = trained_weights(model_of(tiny_model, config))

    after = one_update(trainer(tiny_model, tmp_path, config), short, long)

    assert difference({name: before[name] - after[name] for name in after}, gradient) < 1e-6


def test_an_update_over_part_of_a_group_is_weighted_by_its_own_tokens(tiny_model, tmp_path):
    config = settings(optimizer="sgd")
    whole = one_update(trainer(tiny_model, tmp_path, config), rows(2))
    part = trainer(tiny_model, tmp_path, config)

    part.accumulate(collate(rows(2)), {"loss": 1000})
    part.update(1.0, {"loss": 1000})

    assert difference(trained_weights(part.model), whole) < 1e-6


def test_the_gradient_norm_is_that_of_the_mean_over_the_groups_tokens(tiny_model, tmp_path):
    config = settings(optimizer="sgd")
    here = trainer(tiny_model, tmp_path, config)

    one_update(here, rows(2), [row(4, 30)])

    expected = norm(plain_gradient(model_of(tiny_model, config), [collate(rows(2)), collate([row(4, 30)])]))
    assert here.counters.gradient_norm == pytest.approx(expected, rel=1e-5)


# clipping -----------------------------------------------------------------------------------------------------------


def test_a_clipped_gradient_has_the_limit_as_its_norm_and_keeps_its_direction(tiny_model, tmp_path):
    config = settings(optimizer="sgd", max_grad_norm=1e-3)
    before = trained_weights(model_of(tiny_model, config))
    gradient = plain_gradient(model_of(tiny_model, config), [collate(rows(3))])

    after = one_update(trainer(tiny_model, tmp_path, config), rows(3))

    clipped = {name: before[name] - after[name] for name in after}
    assert norm(clipped) == pytest.approx(1e-3, rel=1e-4)
    assert difference(clipped, {name: each * 1e-3 / norm(gradient) for name, each in gradient.items()}) < 1e-7


def test_a_gradient_below_the_limit_is_left_as_it_is(tiny_model, tmp_path):
    free = one_update(trainer(tiny_model, tmp_path, settings(optimizer="sgd")), rows(3))

    limited = one_update(trainer(tiny_model, tmp_path, settings(optimizer="sgd", max_grad_norm=1e6)), rows(3))

    assert difference(free, limited) == 0


def test_the_reported_norm_is_the_one_before_clipping(tiny_model, tmp_path):
    free, limited = (
        trainer(tiny_model, tmp_path, settings(optimizer="sgd", max_grad_norm=limit)) for limit in (None, 1e-3)
    )

    one_update(free, rows(3))
    one_update(limited, rows(3))

    assert limited.counters.gradient_norm == free.counters.gradient_norm > 1e-3


# the standard error -------------------------------------------------------------------------------------------------


def test_the_standard_error_is_that_of_drawing_the_rows_again():
    generator = np.random.default_rng(0)
    tokens = generator.integers(5, 60, 120)
    losses = tokens * generator.normal(3.0, 0.8, 120)

    mean, error = ratio(losses, tokens)

    drawn = generator.integers(0, 120, (20_000, 120))
    means = losses[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    assert mean == losses.sum() / tokens.sum()
    assert error == pytest.approx(means.std(), rel=0.03)


def test_the_standard_error_of_rows_of_one_length_is_the_textbooks():
    losses = np.array([4.0, 6.0, 8.0, 5.0])

    assert ratio(losses, np.full(4, 2)) == pytest.approx((2.875, np.std(losses / 2, ddof=1) / 2))


def test_one_row_has_no_standard_error():
    assert ratio(np.array([6.0]), np.array([3])) == (2.0, 0.0)
