"""The GPU that MLX computes on: the memory it may hold, keeping that wired, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import mlx.core as mx

Trouble = Literal["memory", "time"]

SENTENCES: Mapping[Trouble, str] = {
    "memory": "there is not enough memory",
    "time": "the system stopped the GPU, which was kept too long from other work",
}
"""What a person is told of it, before what MLX said."""

# Of the allocators of a processor, Metal and CUDA, and of a command buffer of Metal: its words and its code.
_OF_MEMORY = (
    *("[malloc]", "[metal::malloc]", "Insufficient Memory", "CommandBufferCallbackErrorOutOfMemory"),
    *("cudaErrorMemoryAllocation", "CUDA out of memory", "failed: out of memory"),
)
# macOS ends what keeps the GPU from drawing the screen, or from answering, and for a while all that comes after.
_OF_TIME = (
    *("GPU Timeout", "GPU Hang", "Impacting Interactivity"),
    *("CommandBufferCallbackErrorTimeout", "CommandBufferCallbackErrorHang", "CommandBufferCallbackErrorSubmissions"),
)


def room() -> int | None:
    """The bytes that arrays can still take on the GPU; None on a processor, where it is the machine's memory.

    Memory that a Mac's GPU shares with the processor is bounded by what the system recommends to keep in use at a time:
    what other programs hold beyond the rest is compressed or swapped. CUDA says what is free of a GPU's own memory.
    """
    import mlx.core as mx

    if mx.default_device() != mx.gpu:
        return None
    about = mx.device_info()
    if "free_memory" in about:
        return int(about["free_memory"])
    bound = about.get("max_recommended_working_set_size", about.get("total_memory"))
    return None if bound is None else max(0, int(bound) - mx.get_active_memory())


@contextmanager
def wired(stream: mx.Stream | None = None) -> Iterator[None]:
    """Keep what is computed with in memory while the block runs, as far as Metal recommends: it is not swapped out.

    As mlx-lm does it; nothing on other devices. At the end it waits for what the stream, or the default one, still
    computes, but not after Ctrl-C: who leaves at once waits for no step, and the memory stays wired.
    """
    import mlx.core as mx

    recommended = mx.device_info().get("max_recommended_working_set_size")
    if recommended is None:
        yield
        return
    before = mx.set_wired_limit(int(recommended))
    has_left = False
    try:
        yield
    except KeyboardInterrupt:
        has_left = True
        raise
    finally:
        if not has_left:
            try:
                mx.synchronize(*(() if stream is None else (stream,)))
            finally:
                mx.set_wired_limit(before)


def trouble(error: BaseException) -> Trouble | None:
    """What MLX ran out of: memory, or the time that the system gives a GPU for one piece of work; else None."""
    if isinstance(error, MemoryError):
        return "memory"
    if not isinstance(error, RuntimeError):
        return None
    said = str(error)
    if any(mark in said for mark in _OF_MEMORY):
        return "memory"
    return "time" if any(mark in said for mark in _OF_TIME) else None
