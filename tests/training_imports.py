"""Imported by the server that commands are forked from: all that a command loads, and nothing computed with it."""

from importlib import import_module

from mlxops.projects import blas, machine

# before MLX is imported, or it computes without
blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=None)

for name in (
    "mlxops.__main__",
    "mlxops.jobs.train.session",
    "mlxops.models.loading",
    "mlxops.models.tokenizer",
    "mlxops.training.loop",
    "mlxops.ui.train.live",
    "mlxops.ui.train.outcome",
    "mlxops.ui.terminal.progress",
    "safetensors",
    "sqlite_utils",
):
    import_module(name)

# read from files once a server instead of once a command
import_module("mlxops.models.folders").supported_architectures()
