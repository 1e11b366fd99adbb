"""What a training on a GPU says and depends on; MLX computes on the processor, and its words are substituted."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import mac
import mlx.core as mx
import pytest
import training_runs
from commands import Ended

from mlxops import registry
from mlxops.jobs.train import environment, memory
from mlxops.projects import machine
from mlxops.training.step import Trainer

OPTIONS = ("--model", "tiny", "--name", "run", "--iters", "4", "--save-every", "2", "--num-layers", "1")
NO_MEMORY = "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPU…OutOfMemory)."
NO_TIME = "[METAL] Command buffer execution failed: Impacting Interactivity (0000000e:kIOGPU…Interactivity)."


@pytest.mark.slow
def test_a_gpu_that_fails_is_a_sentence_and_costs_what_came_after_the_checkpoint(
    tmp_path: Path, tiny_model: Path, mlxops: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = training_runs.make_project(tmp_path / "project", tiny_model)
    monkeypatch.chdir(project)
    real = Trainer.accumulate

    def failing(at: int, words: str) -> Callable[..., Any]:
        def accumulate(self: Trainer, *arguments: Any) -> Any:
            if self.counters.iteration == at:
                raise RuntimeError(words)
            return real(self, *arguments)

        return accumulate

    said = {}
    for at, words in ((1, NO_MEMORY), (3, NO_TIME), (4, NO_MEMORY)):
        monkeypatch.setattr(Trainer, "accumulate", failing(at, words))
        said[at] = mlxops(shlex.join(["lora", *OPTIONS]))
    monkeypatch.setattr(Trainer, "accumulate", real)
    resumed = mlxops(shlex.join(["lora", *OPTIONS]))

    with registry.open_read_only(project / "runs.db") as db:
        attempts = registry.attempts_of(db, 1)
    assert [said[at][0] for at in said] == [1, 1, 1]
    assert "there is not enough memory: [METAL] Command buffer" in said[1][2]
    assert "; there is no checkpoint yet\nhint: close other programs, and the same command starts again" in said[1][2]
    assert "the system stopped the GPU, which was kept too long from other work: [METAL]" in said[3][2]
    assert (
        "; the newest checkpoint is that of iteration 2 of 4\nhint: the same command resumes from there" in said[3][2]
    )
    assert "`--branch` with a smaller `--batch-size`" in said[4][2]
    assert not any("bug" in err for _, _, err in said.values())
    assert list(project.glob(".mlxops/crash-*")) == []
    assert resumed[0] == 0
    assert [(each["end_reason"], each["to_iteration"]) for each in attempts] == [
        *(("error", 0), ("error", 2), ("error", 2), ("finished", 4)),
    ]


@pytest.mark.slow
def test_a_training_keeps_memory_wired_and_warns_of_what_the_gpu_may_hold(
    tmp_path: Path, tiny_model: Path, mlxops: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(training_runs.make_project(tmp_path / "project", tiny_model))
    monkeypatch.setattr("mlxops.system.gpu.room", lambda: 1000)
    monkeypatch.setattr(memory, "in_use", lambda: 0)
    wired: list[int] = []
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 48 << 30})
    monkeypatch.setattr(mx, "set_wired_limit", lambda limit: wired.append(limit) or 7)
    real = machine.device()
    monkeypatch.setattr(machine, "device", lambda: {**real, "kind": "gpu", "architecture": "applegpu_g15s"})

    code, _, err = mlxops(shlex.join(["lora", *OPTIONS, "--iters", "1", "--dtype", "float32"]))

    assert code == 0
    assert wired == [48 << 30, 7]
    assert " of memory, and 1.0 kB are there for the GPU: a smaller --batch-size" in err


def test_the_room_is_that_of_the_gpu_however_much_memory_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 30)
    on_processor = memory.room()
    monkeypatch.setattr("mlxops.system.gpu.room", lambda: 40 << 30)

    assert (on_processor, memory.room()) == (1 << 30, 40 << 30)


def test_on_a_mac_exactness_depends_on_its_build_and_the_wheel(
    a_mac: mac.Mac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "site" / "mlx_metal-0.32.4.dist-info"
    wheel.mkdir(parents=True)
    (wheel / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-metal\nVersion: 0.32.4\n")
    (wheel / "WHEEL").write_text("Wheel-Version: 1.0\nTag: py3-none-macosx_15_0_arm64\n")
    monkeypatch.setattr(
        metadata, "distribution", lambda name: metadata.PathDistribution(wheel) if name == "mlx-metal" else {}[name]
    )

    on_gpu = environment.of_the_system("gpu", "applegpu_g15s")
    on_processor = environment.of_the_system("cpu", "arm64")

    assert on_processor == {"macos_build": "24B83"}
    assert on_gpu == {
        **on_processor,
        "wheel": "mlx-metal 0.32.4 macosx_15_0_arm64",
        "architecture": "applegpu_g15s",
    }


def test_on_linux_it_depends_on_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.of_the_system("cpu", "x86_64") == {}
