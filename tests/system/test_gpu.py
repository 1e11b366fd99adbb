"""What a GPU may hold, what is kept wired, and what its errors are called; MLX's functions are substituted for one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import mlx.core as mx
import pytest

from mlxops.errors import Failed
from mlxops.foreign import foreign_code
from mlxops.system import gpu

METAL = {"architecture": "applegpu_g15s", "memory_size": 64 << 30, "max_recommended_working_set_size": 48 << 30}
CUDA = {"architecture": "sm_90", "total_memory": 80 << 30, "free_memory": 70 << 30}


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLX as on a GPU of which this is said; its wired limits are noted in the list that is returned."""
    limits: list[int] = [1000]

    def set_wired_limit(limit: int) -> int:
        limits.append(limit)
        return limits[-2]

    def have(about: dict[str, Any]) -> list[int]:
        monkeypatch.setattr(mx, "default_device", lambda: mx.gpu)
        monkeypatch.setattr(mx, "device_info", lambda: about)
        monkeypatch.setattr(mx, "get_active_memory", lambda: 8 << 30)
        monkeypatch.setattr(mx, "synchronize", lambda *_: None)
        monkeypatch.setattr(mx, "set_wired_limit", set_wired_limit)
        return limits

    return have


def test_shared_memory_is_bounded_by_what_is_recommended(on_a_gpu: Any) -> None:
    on_a_gpu(METAL)

    assert gpu.room() == 40 << 30


def test_memory_of_its_own_is_what_is_free_of_it(on_a_gpu: Any) -> None:
    on_a_gpu(CUDA)

    assert gpu.room() == 70 << 30


def test_a_processor_has_no_memory_of_its_own() -> None:
    assert (gpu.room() is None) == (mx.default_device() != mx.gpu)


def test_memory_is_wired_while_something_works_and_no_longer(on_a_gpu: Any) -> None:
    limits = on_a_gpu(METAL)

    with suppress(ZeroDivisionError), gpu.wired():
        limits.append(1 // 0 if limits == [1000, 48 << 30] else 0)

    assert limits == [1000, 48 << 30, 1000]


def test_who_leaves_at_once_waits_for_no_step(on_a_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = on_a_gpu(METAL)
    monkeypatch.setattr(mx, "synchronize", lambda *_: pytest.fail("it waited"))

    with pytest.raises(KeyboardInterrupt), gpu.wired():
        raise KeyboardInterrupt

    assert limits == [1000, 48 << 30]


def test_where_nothing_is_recommended_nothing_is_wired(on_a_gpu: Any) -> None:
    limits = on_a_gpu(CUDA)

    with gpu.wired():
        pass

    assert limits == [1000]


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("[METAL] Command buffer execution failed: Insufficient Memory (00000008:…ErrorOutOfMemory).", "memory"),
        ("[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum buffer size.", "memory"),
        ("[metal::malloc] Resource limit (499000) exceeded.", "memory"),
        ("[malloc] Unable to allocate 9 bytes.", "memory"),
        ("[METAL] Command buffer execution failed: Caused GPU Timeout Error (00000002:…ErrorTimeout).", "time"),
        ("[METAL] Command buffer execution failed: Impacting Interactivity (0000000e:…).", "time"),
        ("[METAL] Command buffer execution failed: Caused GPU Hang Error (00000003:…).", "time"),
        ("[METAL] Command buffer execution failed: Internal Error (0000000e:Internal Error).", None),
        ("[matmul] Last dimension of first input must match", None),
    ],
)
def test_what_mlx_ran_out_of_is_told_from_what_is_wrong(said: str, lacks: str | None) -> None:
    assert gpu.trouble(RuntimeError(said)) == lacks
    assert gpu.trouble(ValueError(said)) is None


def test_a_model_that_does_not_fit_is_no_damaged_one() -> None:
    said = "[metal::malloc] Attempting to allocate 9 bytes"

    with pytest.raises(Failed, match=r"there is not enough memory: .metal::malloc. Att"), foreign_code(ValueError):
        raise RuntimeError(said)
