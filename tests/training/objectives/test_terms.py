"""A loss is a sum of terms, each a sum of values over a sum of weights, wherever it is computed."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from small_trainings import model_of, row, rows, settings, train_small, trained_weights, trainer
from small_trainings import row_losses as losses_of

from mlxops.events import Report, Validation
from mlxops.training import checkpoints
from mlxops.training.batches import collate, fixed_batches
from mlxops.training.improvement import ratio
from mlxops.training.objectives import sft
from mlxops.training.objectives.terms import Objective, part
from mlxops.training.score import arrays_of, plain
from mlxops.training.state import Counters, Window

TWO = Objective(terms=lambda score, batch: {}, weights=lambda batch: {}, coefficients={"tokens": 1.0, "rows": 0.5})


def terms_of_two(score, batch):
    """The loss per token, and the loss of a row as if all rows were of one length."""
    values = sft.terms(score, batch)["loss"]
    means = values / mx.maximum(batch["mask"].sum(axis=1), 1)
    return {"tokens": values, "rows": means, "longest": mx.stop_gradient(batch["mask"].sum(axis=1))}


def weights_of_two(batch):
    ones = np.ones(len(batch.origins))
    return {"tokens": sft.weights(batch)["loss"], "rows": ones, "longest": ones}


MIXED = Objective(terms=terms_of_two, weights=weights_of_two, coefficients={"tokens": 1.0, "rows": 0.5})


# arithmetic ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_sum_of_the_terms_means_times_their_coefficients():
    assert TWO.loss({"tokens": 6.0, "rows": 4.0, "other": 9.0}, {"tokens": 3.0, "rows": 2.0, "other": 1.0}) == 3.0


def test_a_term_without_weight_adds_nothing_and_without_any_there_is_no_loss():
    assert TWO.loss({"tokens": 0.0, "rows": 4.0}, {"tokens": 0.0, "rows": 2.0}) == 1.0
    assert TWO.loss({"tokens": 0.0, "rows": 0.0}, {"tokens": 0.0, "rows": 0.0}) is None
    assert TWO.loss({}, {}) is None


def test_metrics_are_what_is_no_term_and_each_of_several_terms():
    values, weights = {"tokens": 6.0, "rows": 4.0, "other": 9.0}, {"tokens": 3.0, "rows": 2.0, "other": 2.0}

    assert TWO.metrics(values, weights) == {"tokens": 2.0, "rows": 2.0, "other": 4.5}
    assert sft.SUPERVISED.metrics({"loss": 6.0, "other": 9.0}, {"loss": 3.0, "other": 2.0}) == {"other": 4.5}
    assert math.isnan(TWO.metrics({"other": 0.0}, {"other": 0.0})["other"])


def test_the_values_of_a_single_term_are_left_as_they_are():
    values, weights = {"loss": np.array([0.1, 1 / 3, -0.0])}, {"loss": np.array([3, 7, 0])}

    found = sft.SUPERVISED.per_unit(values, weights)

    assert [each.tobytes() for each in found] == [values["loss"].tobytes(), weights["loss"].tobytes()]
    assert found[1].dtype == weights["loss"].dtype


def test_the_standard_error_of_several_terms_is_that_of_drawing_the_units_again():
    generator = np.random.default_rng(0)
    tokens = generator.integers(5, 60, 150)
    weights = {"tokens": tokens, "rows": generator.integers(0, 3, 150) / 2}
    values = {
        "tokens": tokens * generator.normal(3.0, 0.8, 150),
        "rows": weights["rows"] * generator.normal(9.0, 4.0, 150),
    }

    mean, error = ratio(*TWO.per_unit(values, weights))

    drawn = generator.integers(0, 150, (20_000, 150))
    means = {name: values[name][drawn].sum(axis=1) / weights[name][drawn].sum(axis=1) for name in values}
    sums = [{name: each.sum() for name, each in arrays.items()} for arrays in (values, weights)]
    assert mean == pytest.approx(TWO.loss(*sums))
    assert error == pytest.approx((means["tokens"] + 0.5 * means["rows"]).std(), rel=0.03)


def test_a_part_of_a_batch_has_the_names_without_that_of_the_part():
    batch = {"left.tokens": 1, "left.mask": 2, "leftover.tokens": 3, "tokens": 4}

    assert part(batch, "left") == {"tokens": 1, "mask": 2}


def test_a_window_leaves_out_what_is_not_finite_together_with_its_weight():
    window = Window()

    window.add({"loss": 2.0, "margin": math.inf}, {"loss": 4.0, "margin": 3.0})
    window.add({"loss": 1.0, "margin": 6.0}, {"loss": 2.0, "margin": 3.0})

    assert (window.values, window.weights) == ({"loss": 3.0, "margin": 6.0}, {"loss": 6.0, "margin": 3.0})
    assert Counters.from_json(Counters(window=window).to_json()).window == window


# in the loop --------------------------------------------------------------------------------------------------------


def gradient_of_two(model, *groups):
    """The gradient of the two terms' loss over all rows at once, by MLX's plain differentiation."""
    made = [collate(group) for group in groups]
    weights = [weights_of_two(batch) for batch in made]

    def loss():
        total = mx.array(0.0)
        for batch in made:
            for name, value in terms_of_two(plain(model), arrays_of(batch)).items():
                if name in MIXED.coefficients:
                    total += MIXED.coefficients[name] * value.sum() / float(sum(each[name].sum() for each in weights))
        return total

    _, gradient = nn.value_and_grad(model, loss)()
    return dict(tree_flatten(gradient))


def test_each_term_is_weighted_over_the_whole_group_by_its_own_weights(tiny_model, tmp_path):
    config = settings(optimizer="sgd", learning_rate=1.0, iters=2, batch_size=2, grad_accumulation_steps=2)
    groups = [row(0, 8), row(1, 9)], [row(2, 40), row(3, 41)]
    model = model_of(tiny_model, config)
    before, expected = trained_weights(model), gradient_of_two(model, *groups)

    train_small(tiny_model, tmp_path, config, rows=[each for group in groups for each in group], objective=MIXED)

    after = mx.load(str(tmp_path / "adapters.safetensors"))
    for name, each in expected.items():
        np.testing.assert_allclose(before[name] - np.array(after[name]), np.array(each), atol=1e-6)


def test_no_term_of_a_partial_group_counts_more_than_its_own_mean(tiny_model, tmp_path):
    config = settings(optimizer="sgd")
    here = trainer(tiny_model, tmp_path, config, objective=MIXED)
    group, batch = {"tokens": 100.0, "rows": 4.0, "longest": 4.0}, collate(rows(2))
    before = trained_weights(here.model)

    here.accumulate(batch, group)
    gradient = {name: np.array(each) for name, each in here.accumulated.items()}
    here.update(1.0, group)

    factor = min(100 / batch.trained, 4 / 2)
    assert factor == 2
    for name, each in trained_weights(here.model).items():
        np.testing.assert_allclose(before[name] - each, factor * gradient[name], atol=1e-6)


@pytest.mark.slow
def test_terms_and_metrics_of_an_objective_stand_in_reports_and_validations(tiny_model, tmp_path):
    config = settings(iters=2, batch_size=4, val_batches=-1)

    heard = train_small(tiny_model, tmp_path, config, rows=rows(4), validation_rows=rows(5), objective=MIXED)

    first = heard.of(Validation)[0]
    batch = collate(rows(5))
    losses, tokens = losses_of(model_of(tiny_model, config), batch), sft.weights(batch)["loss"]
    expected = {"tokens": losses.sum() / tokens.sum(), "rows": (losses / tokens).mean(), "longest": tokens.mean()}
    assert first.metrics == {f"validation_{name}": pytest.approx(each, rel=1e-5) for name, each in expected.items()}
    assert first.loss == pytest.approx(expected["tokens"] + 0.5 * expected["rows"], rel=1e-5)
    (report,) = heard.of(Report)
    assert report.metrics["longest"] == sft.weights(collate(rows(4)))["loss"].mean()
    assert report.metrics["train_loss"] == pytest.approx(report.metrics["tokens"] + 0.5 * report.metrics["rows"])


@pytest.mark.slow
def test_units_that_depend_on_their_batch_have_the_error_of_batches(tiny_model, tmp_path):
    config = settings(iters=1, val_batches=-1)
    coupled = Objective(terms=sft.terms, weights=sft.weights, has_coupled_units=True)
    made = fixed_batches(rows(6), batch_size=config.batch_size, count=-1, seed=0)

    heard = train_small(tiny_model, tmp_path, config, validation_rows=rows(6), objective=coupled)

    first, model = heard.of(Validation)[0], model_of(tiny_model, config)
    sums = np.array([losses_of(model, batch).sum() for batch in made])
    expected = ratio(sums, np.array([batch.trained for batch in made]))
    assert (first.loss, first.standard_error) == (pytest.approx(expected[0]), pytest.approx(expected[1], rel=1e-4))
    assert (first.rows, len(made)) == (6, 3)
    assert len(checkpoints.newest(tmp_path)[0].counters.improvement.rows) == 3
