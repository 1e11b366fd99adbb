"""Runs `mlx_lm.lora` as it is, with the same fast BLAS, and prints its own reports as JSON lines.

usage: mlx_lm_peer.py <arguments of mlx_lm.lora>
"""

from __future__ import annotations

import json
import os
import time

from mlxops.projects import blas, machine


def main() -> None:
    loaded = blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=os.environ.get("MLXOPS_BLAS"))
    print(json.dumps({"blas": loaded.name, "threads": loaded.threads}), flush=True)
    from mlx_lm import lora
    from mlx_lm.tuner.callbacks import TrainingCallback

    class Reports(TrainingCallback):
        def on_train_loss_report(self, train_info: dict) -> None:
            print(json.dumps({"train": {name: float(value) for name, value in train_info.items()}}), flush=True)

        def on_val_loss_report(self, val_info: dict) -> None:
            found = {name: float(value) for name, value in val_info.items()}
            print(json.dumps({"at": time.time(), "validation": found}), flush=True)

    # the one seam through which a caller can hear its reports (mlx_lm/lora.py, run)
    lora.get_reporting_callbacks = lambda *args, **kwargs: Reports()
    lora.main()


if __name__ == "__main__":
    main()
