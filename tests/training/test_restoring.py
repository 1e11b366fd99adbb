"""What a training restores from a checkpoint, to the last bit, and which checkpoint does not fit it."""

import numpy as np
import pytest
from small_trainings import adapter_bytes, after_step, content, rows, settings, train_small, work

from mlxops.errors import Failed
from mlxops.training import checkpoints
from mlxops.training.state import Counters
from mlxops.training.step import Trainer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        ("adam", {"bias_correction": True}),
        ("adamw", {}),
        ("muon", {}),
        ("sgd", {"momentum": 0.9}),
        ("adafactor", {"beta_1": 0.9}),
    ],
)
def test_every_optimizer_goes_on_from_its_state_to_the_last_bit(tiny_model, tmp_path, optimizer, arguments, kind):
    config = settings(
        optimizer=optimizer,
        optimizer_config={optimizer: arguments},
        fine_tune_type=kind,
        iters=6,
        grad_accumulation_steps=2,
        max_grad_norm=0.05,
        lr_schedule="cosine_decay",
        warmup=2,
    )
    whole = train_small(tiny_model, tmp_path / "whole", config)

    first = train_small(tiny_model, tmp_path / "parts", config, stop_at=after_step(3))
    rest = train_small(tiny_model, tmp_path / "parts", config)

    assert first.losses + rest.losses == whole.losses
    assert adapter_bytes(tmp_path / "parts", 6) == adapter_bytes(tmp_path / "whole", 6)
    assert content(checkpoints.read(tmp_path / "parts", 6)) == content(checkpoints.read(tmp_path / "whole", 6))


def test_what_is_restored_is_what_was_there(tiny_model, tmp_path):
    config = settings(iters=3, grad_accumulation_steps=2)
    train_small(tiny_model, tmp_path, config, stop_at=after_step(3))
    written = checkpoints.newest(tmp_path)[0]

    found = Trainer(work(tiny_model, tmp_path, config)).snapshot()

    assert found.accumulated
    parts = (found.weights, found.optimizer, found.accumulated)
    assert content(written) == (
        [{name: value.tolist() for name, value in part.items()} for part in parts],
        found.counters,
    )


@pytest.mark.parametrize("changed", [{"lora_rank": 2}, {"num_layers": 1}, {"optimizer": "sgd"}])
def test_a_checkpoint_that_does_not_fit_is_refused(tiny_model, tmp_path, changed):
    train_small(tiny_model, tmp_path, settings(iters=2))

    with pytest.raises(Failed, match="do not fit this model"):
        Trainer(work(tiny_model, tmp_path, settings(iters=2, **changed)))


def test_a_snapshot_stays_as_it_is_while_training_goes_on(tiny_model, tmp_path):
    trainer = Trainer(work(tiny_model, tmp_path, settings(optimizer="adam"), rows=rows(4)))
    batch = trainer.work.plan.batch(1)
    before = trainer.snapshot()
    kept = {name: np.array(value) for name, value in before.weights.items()}

    trainer.accumulate(batch, {"loss": batch.trained})
    trainer.update(1e-1, {"loss": batch.trained})

    assert all((np.array(before.weights[name]) == value).all() for name, value in kept.items())
    assert before.optimizer["step"].item() == 0
    assert before.counters == Counters()
