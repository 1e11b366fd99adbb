"""The optimizers of mlx-lm, with their own arguments."""

import mlx.core as mx
import mlx.optimizers as optim
import pytest
from small_trainings import settings

from mlxops.errors import BadRequest
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


@pytest.mark.parametrize("arguments", [{"momentun": 0.9}, {"learning_rate": 1.0}, {"nesterov": True}])
def test_an_argument_that_an_optimizer_does_not_take_is_refused(arguments):
    with pytest.raises(BadRequest, match="sgd"):
        make(settings(optimizer="sgd", optimizer_config={"sgd": arguments}))


def test_a_misspelt_argument_suggests_the_nearest():
    with pytest.raises(BadRequest) as refused:
        make(settings(optimizer="sgd", optimizer_config={"sgd": {"momentun": 0.9}}))

    assert refused.value.hint == "did you mean 'momentum'?"
