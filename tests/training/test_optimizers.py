"""The optimizers of mlx-lm, with their own arguments."""

import mlx.core as mx
import mlx.optimizers as optim
import pytest
from small_trainings import rows, settings, train_small

from mlxops.errors import BadRequest
from mlxops.events import Validation
from mlxops.training import ways
from mlxops.training.optimizers import make


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", optim.Adam),
        ("adamw", optim.AdamW),
        ("muon", optim.Muon),
        ("sgd", optim.SGD),
        ("adafactor", optim.Adafactor),
    ],
)
def test_an_optimizer_is_mlxs(name, kind):
    assert type(make(settings(optimizer=name))) is kind


def test_an_optimizer_takes_its_own_arguments_alone():
    config = settings(optimizer="adamw", optimizer_config={"adamw": {"weight_decay": 0.5}, "sgd": {"momentum": 1}})

    assert make(config).weight_decay == 0.5


def test_adafactor_obeys_the_learning_rate():
    weights = []
    for rate in (1e-3, 1e-1):
        optimizer = make(settings(optimizer="adafactor"))
        optimizer.learning_rate = rate
        parameters = {"w": mx.ones((3, 3))}
        weights.append(optimizer.apply_gradients({"w": mx.ones((3, 3))}, parameters)["w"][0, 0].item())

    assert 1 - weights[1] == pytest.approx(100 * (1 - weights[0]), rel=1e-3)


@pytest.mark.parametrize(
    ("way", "arguments", "expected"),
    [
        ("learning rate", {}, 1e-3),
        ("learning rate", {"scale_parameter": True}, 1e-6),
        (ways.SCALED, {}, 1e-6),
        (ways.SCALED, {"scale_parameter": False}, 1e-3),
    ],
)
def test_adafactors_updates_of_weights_that_are_zero_have_the_size_of_its_way(way, arguments, expected):
    config = settings(optimizer="adafactor", optimizer_config={"adafactor": arguments}, learning_rate=1e-3)

    updated = make(config, adafactor=way).apply_gradients({"w": mx.ones((3, 3))}, {"w": mx.zeros((3, 3))})

    assert mx.abs(updated["w"]).max().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_adafactor_learns_at_a_small_learning_rate(tiny_model, tmp_path):
    config = settings(optimizer="adafactor", learning_rate=1e-3, iters=10, lora_scale=20.0)

    heard = train_small(tiny_model, tmp_path / "new", config, validation_rows=rows(3))
    before = {**ways.choose({}), "adafactor": ways.SCALED}
    scaled = train_small(tiny_model, tmp_path / "scaled", config, validation_rows=rows(3), ways=before)

    falls = [each.of(Validation)[0].loss - each.of(Validation)[-1].loss for each in (heard, scaled)]
    assert falls[0] > 0.05
    assert falls[0] > 20 * abs(falls[1])


@pytest.mark.parametrize("arguments", [{"momentun": 0.9}, {"learning_rate": 1.0}, {"nesterov": True}])
def test_an_argument_that_an_optimizer_does_not_take_is_refused(arguments):
    with pytest.raises(BadRequest, match="sgd"):
        make(settings(optimizer="sgd", optimizer_config={"sgd": arguments}))


def test_a_misspelt_argument_suggests_the_nearest():
    with pytest.raises(BadRequest) as refused:
        make(settings(optimizer="sgd", optimizer_config={"sgd": {"momentun": 0.9}}))

    assert refused.value.hint == "did you mean 'momentum'?"
