"""The counters of a training, in text and in memory."""

import json

from mlxops.training.state import Counters


def test_counters_keep_every_bit_in_text():
    closing = {"train_loss": 0.1 + 0.2, "gradient_norm": None}
    counters = Counters(iteration=3, train_loss=0.1 + 0.2, gradient_norm=5e-324, closing=closing)
    counters.window.add({"loss": 1 / 3}, {"loss": 7.0})

    assert Counters.from_json(counters.to_json()) == counters
    assert Counters.from_json(json.dumps(json.loads(counters.to_json()))) == counters


def test_counters_from_before_there_were_objectives_are_read():
    now = Counters(iteration=3, trained_tokens=50, group_weights={"loss": 20})
    now.window.add({"loss": 1 / 3}, {"loss": 30})
    window = {"loss": 1 / 3, "tokens": 30, "real": 0, "positions": 0}
    old = {name: value for name, value in json.loads(now.to_json()).items() if name != "group_weights"}

    assert Counters.from_json(json.dumps(old | {"window": window, "group_tokens": 20})) == now
    empty = {"window": window | {"loss": 0.0, "tokens": 0}, "group_tokens": 0}
    assert Counters.from_json(json.dumps(old | empty)) == Counters(iteration=3, trained_tokens=50)


def test_a_copy_of_counters_goes_its_own_way():
    counters = Counters()

    copy = counters.copy()
    copy.window.add({"loss": 1.0}, {"loss": 1.0})
    copy.group_weights["loss"], copy.closing["train_loss"] = 1.0, 1.0

    assert counters == Counters()
