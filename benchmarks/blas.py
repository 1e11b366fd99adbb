"""How much faster MLX multiplies in fp32 with OpenBLAS than with the BLAS of its own wheel.

    python benchmarks/blas.py [REPEATS]

Each side is a process of its own, the two take turns, and the figure is the median.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Rows, inner and columns of products as a small model has them: a projection, its MLP, its vocabulary.
SHAPES = ((512, 576, 576), (512, 576, 1536), (128, 576, 49152), (1024, 1024, 1024))

SECONDS = 0.5


def gflops(rows: int, inner: int, columns: int) -> float:
    """The speed of one product, over half a second of them."""
    import mlx.core as mx

    left, right = mx.random.normal((rows, inner)), mx.random.normal((inner, columns))
    mx.eval(left, right, left @ right)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        mx.eval(left @ right)
        count += 1
    return 2 * rows * inner * columns * count / elapsed / 1e9


def measure(setting: str, cache: Path) -> None:
    """Print what is in use and the speed of each shape, as JSON."""
    from mlxops.projects import blas

    loaded = blas.load(threads=None, core_type=None, cache=cache, setting=setting)
    speeds = [gflops(*shape) for shape in SHAPES]
    print(json.dumps({"in_use": f"{loaded.name} {loaded.core_type} x {loaded.threads}", "speeds": speeds}))


def main(repeats: int) -> None:
    """Measure both sides in turn and print the table."""
    results: dict[str, list[list[float]]] = {"on": [], "off": []}
    names = {}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(repeats):
            for setting, speeds in results.items():
                command = [sys.executable, __file__, "measure", setting, cache]
                said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
                speeds.append(said["speeds"])
                names[setting] = said["in_use"]
    print(f"{'product':>20} {names['off']:>24} {names['on']:>24}   ratio   (GFLOP/s, median of {repeats})")
    for place, shape in enumerate(SHAPES):
        slow, fast = (statistics.median(speeds[place] for speeds in results[setting]) for setting in ("off", "on"))
        print(f"{' x '.join(map(str, shape)):>20} {slow:24.1f} {fast:24.1f} {fast / slow:7.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
