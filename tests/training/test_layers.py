"""What is trained is what mlx-lm would train; dropout and recomputation change no gradient but their own."""

import json
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from small_trainings import model_of, rows, settings, train_small, trained_weights, trainer

from mlxops.config import LoraConfig
from mlxops.errors import BadRequest
from mlxops.models.loading import load_model
from mlxops.models.tiny import make_tiny
from mlxops.training import layers
from mlxops.training.batches import collate


def of_mlx_lm(folder, config: LoraConfig) -> set[str]:
    """The names that mlx-lm trains for the same options (mlx_lm.lora, `train_model`)."""
    model, _ = load_model(folder)
    model.freeze()
    if config.fine_tune_type == "full":
        for layer in model.layers[-max(config.num_layers, 0) :]:
            layer.unfreeze()
    else:
        keys = {"keys": config.lora_keys} if config.lora_keys else {}
        arguments = {"rank": config.lora_rank, "scale": config.lora_scale, "dropout": config.lora_dropout, **keys}
        linear_to_lora_layers(model, config.num_layers, arguments, use_dora=config.fine_tune_type == "dora")
    return {name for name, _ in tree_flatten(model.trainable_parameters())}


def gradient(trainer) -> tuple[float, dict[str, np.ndarray]]:
    """The loss and the gradient of one batch."""
    batch = collate(rows(3))
    values, _ = trainer.accumulate(batch, {"loss": batch.trained})
    return values["loss"], {name: np.array(value) for name, value in trainer.accumulated.items()}


def largest_difference(first, other) -> float:
    return max(float(np.abs(first[name] - other[name]).max()) for name in first)


@pytest.fixture
def uncompiled():
    """Steps that are run as they are written, so that what they leave behind can be looked at."""
    mx.disable_compile()
    yield
    mx.enable_compile()


# what is trained ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 3, 4, -1])
@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_what_is_trained_is_what_mlx_lm_trains(tiny_model, kind, num_layers):
    config = settings(fine_tune_type=kind, num_layers=num_layers)

    assert set(layers.trainable(model_of(tiny_model, config))) == of_mlx_lm(tiny_model, config)


@pytest.mark.parametrize(
    "keys", [["self_attn.q_proj"], ["self_attn.q_proj", "mlp.down_proj"], ["model.embed_tokens", "self_attn.v_proj"]]
)
def test_keys_choose_the_layers_that_mlx_lm_chooses(tiny_model, keys):
    config = settings(lora_keys=keys)

    found = set(layers.trainable(model_of(tiny_model, config)))

    assert found == of_mlx_lm(tiny_model, config)
    assert len(found) == sum(1 if key.startswith("model.") else 2 for key in keys) * 2


def test_a_quantized_model_is_adapted_as_mlx_lm_adapts_it(tiny_quantized_model):
    config = settings()

    assert set(layers.trainable(model_of(tiny_quantized_model, config))) == of_mlx_lm(tiny_quantized_model, config)


def test_the_first_weights_of_an_adapter_are_a_function_of_the_seed(tiny_model):
    first = trained_weights(model_of(tiny_model, settings(seed=1)))
    mx.random.seed(99)

    again = trained_weights(model_of(tiny_model, settings(seed=1)))
    other = trained_weights(model_of(tiny_model, settings(seed=2)))

    assert largest_difference(first, again) == 0
    assert largest_difference(first, other) > 0.01


def test_more_layers_than_the_model_has_are_refused(tiny_model):
    with pytest.raises(BadRequest, match="--num-layers 5 is more than the 4 layers") as refused:
        model_of(tiny_model, settings(num_layers=5))

    assert refused.value.hint


@pytest.mark.parametrize("key", ["self_attn.qproj", "lm_head"])
def test_a_key_that_is_no_layer_is_refused(tiny_model, key):
    with pytest.raises(BadRequest, match=f"--lora-keys '{key}' is no layer") as refused:
        model_of(tiny_model, settings(lora_keys=[key]))

    assert "self_attn.q_proj" in refused.value.hint


@pytest.mark.parametrize("key", ["self_attn", "input_layernorm"])
def test_a_key_that_cannot_be_adapted_is_refused(tiny_model, key):
    with pytest.raises(BadRequest, match="cannot be adapted"):
        model_of(tiny_model, settings(lora_keys=[key]))


def test_a_full_fine_tuning_of_packed_weights_is_refused(tiny_quantized_model):
    with pytest.raises(BadRequest, match="quantized") as refused:
        model_of(tiny_quantized_model, settings(fine_tune_type="full"))

    assert refused.value.hint


# what mlx-lm reads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_mlx_lm_loads_what_was_trained_and_computes_the_same(tiny_model, tmp_path, kind):
    config = settings(fine_tune_type=kind, iters=3)
    model = model_of(tiny_model, config)
    train_small(tiny_model, tmp_path, config, model=model)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(
            {
                "fine_tune_type": kind,
                "num_layers": config.num_layers,
                "lora_parameters": {"rank": config.lora_rank, "scale": config.lora_scale, "dropout": 0.0},
            }
        )
    )

    loaded = load_adapters(load_model(tiny_model)[0], str(tmp_path))

    tokens = mx.array([[5, 9, 2, 77]])
    model.eval()
    np.testing.assert_array_equal(np.array(loaded(tokens)), np.array(model(tokens)))
    assert np.abs(np.array(load_model(tiny_model)[0](tokens)) - np.array(model(tokens))).max() > 0.01


# dropout ------------------------------------------------------------------------------------------------------------


def test_dropout_keeps_the_share_it_says_and_the_mean():
    dropout = layers.KeyedDropout(0.75)
    dropout.take(mx.random.key(1))

    found = np.array(dropout(mx.ones((300, 300))))

    assert set(np.unique(found)) == {0.0, np.float32(1 / 0.75)}
    assert found.mean() == pytest.approx(1, abs=0.01)


def test_dropout_does_nothing_outside_training():
    dropout = layers.KeyedDropout(0.75)
    dropout.eval()

    assert np.array(dropout(mx.ones((30, 30)))).min() == 1


def test_the_mask_of_a_step_follows_from_seed_and_step_alone(tiny_model, tmp_path):
    config = settings(lora_dropout=0.3)
    here, other = trainer(tiny_model, tmp_path, config), trainer(tiny_model, tmp_path, config)
    here.counters.iteration = other.counters.iteration = 5
    first = gradient(here)[1]
    mx.random.seed(4)

    again = gradient(other)[1]
    other.accumulated, other.counters.iteration = None, 6

    assert largest_difference(first, again) == 0
    assert largest_difference(first, gradient(other)[1]) > 0


def test_every_adapted_layer_has_a_mask_of_its_own(tiny_model, tmp_path, uncompiled):
    here = trainer(tiny_model, tmp_path, settings(lora_dropout=0.3))
    gradient(here)

    keys = {tuple(np.array(each.key).tolist()) for each in layers.dropouts(here.model)}

    assert len(keys) == len(layers.dropouts(here.model)) == 14


def test_a_dropout_of_the_models_own_draws_by_key_too_and_keeps_its_share(tiny_model):
    model, _ = load_model(tiny_model)
    model.layers[3].dropout = nn.Dropout(0.5)

    layers.prepare(model, settings(lora_dropout=0.25))

    own = model.layers[3].dropout
    own.take(mx.random.key(0))
    assert isinstance(own, layers.KeyedDropout)
    assert float(own(mx.ones((100,))).max()) == 2


# recomputing --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_gradient_checkpointing_changes_neither_loss_nor_gradient(tiny_model, tmp_path, kind, dropout):
    config = settings(fine_tune_type=kind, lora_dropout=dropout, num_layers=-1)
    loss, plain = gradient(trainer(tiny_model, tmp_path, config))

    found, recomputed = gradient(trainer(tiny_model, tmp_path, replace(config, grad_checkpoint=True)))

    assert found == pytest.approx(loss, rel=1e-6)
    assert recomputed.keys() == plain.keys()
    assert largest_difference(plain, recomputed) < 1e-6
    assert max(float(np.abs(each).max()) for each in plain.values()) > 1e-3


@pytest.mark.slow
def test_a_training_with_gradient_checkpointing_goes_where_one_without_goes(tiny_model, tmp_path):
    config = {"lora_dropout": 0.2, "iters": 4}

    plain = train_small(tiny_model, tmp_path / "plain", settings(**config))
    recomputed = train_small(tiny_model, tmp_path / "recomputed", settings(**config, grad_checkpoint=True))

    assert recomputed.losses == pytest.approx(plain.losses, rel=1e-5)


def test_gradient_checkpointing_leaves_every_other_model_alone(tiny_model):
    other, _ = load_model(tiny_model)
    before = type(other.layers[3])

    model = model_of(tiny_model, settings(grad_checkpoint=True))

    assert type(model.layers[3]) is not before
    assert type(other.layers[3]) is type(load_model(tiny_model)[0].layers[3]) is before
    assert type(model.layers[0]) is before


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_other_architectures_train_too(tmp_path, model_type):
    folder = make_tiny(tmp_path / "model", model_type=model_type)

    heard = train_small(folder, tmp_path / "run", settings(lora_dropout=0.1, grad_checkpoint=True, iters=2))

    assert heard.losses == pytest.approx([5.95, 5.95], abs=0.15)


@pytest.mark.slow
def test_a_packed_model_is_trained(tiny_quantized_model, tmp_path):
    config = settings(iters=2, batch_size=100, learning_rate=1e-2)

    losses = train_small(tiny_quantized_model, tmp_path, config).losses

    assert losses[1] < losses[0]
