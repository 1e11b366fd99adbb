"""The word that a person most likely meant."""

from __future__ import annotations

from mlxops.likeness import choice_meant, near_ones, nearest

OPTIONS = ["--iters", "--iterations", "--learning-rate", "--lora-rank", "--model", "--mode", "--num-trials", "--status"]
TASKS = ["chat", "checkpoints", "clean", "lora", "models", "monitor", "run.show", "runs", "status", "test"]
STATUSES = ["created", "running", "interrupted", "completed", "failed", "lost"]

MEANT = [
    ("fnished", ["failed", "finished"], "finished"),
    ("--modle", OPTIONS, "--model"),
    ("--itres", OPTIONS, "--iters"),
    ("--trails", OPTIONS, "--num-trials"),
    ("--learningrate", OPTIONS, "--learning-rate"),
    ("lroa", TASKS, "lora"),
    ("ruons", TASKS, "runs"),
    ("statsu", TASKS, "status"),
    ("model", TASKS, "models"),
    ("clena", TASKS, "clean"),
    ("chekpoint", TASKS, "checkpoints"),
    ("xyzzy", TASKS, None),
]


def test_the_word_with_the_fewest_slips_is_meant() -> None:
    assert {(word, nearest(word, known)) for word, known, _ in MEANT} == {(word, meant) for word, _, meant in MEANT}


def test_a_status_is_meant_by_what_others_call_it_too() -> None:
    words = ("fnished", "finished", "done", "complet", "stoped", "kiled", "crashed", "runing", "faild", "dead", "x")

    assert [choice_meant(word, STATUSES) for word in words] == [
        *["completed"] * 4, *["interrupted"] * 2, "failed", "running", "failed", "lost", None,
    ]  # fmt: skip
    assert choice_meant("done", ["adam", "sgd"]) is None
    assert [choice_meant(word, ["basic", "advanced"]) for word in ("adv", "a", "")] == ["advanced", "advanced", None]


def test_the_likest_come_first() -> None:
    assert near_ones("herin", ["heron", "herring", "heroine", "wren"], 2) == ["heron", "herring"]
