"""Imported by the server that commands are forked from: all that a command loads, and nothing computed with it."""

import gc
from importlib import import_module

from mlxops.projects import blas, machine

# before MLX is imported, or it computes without
blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=None)

for name in (
    "mlxops.__main__",
    "mlxops.jobs.model.download",
    "mlxops.jobs.train.detach",
    "mlxops.jobs.train.fine_tune",
    "mlxops.jobs.train.outcome",
    "mlxops.jobs.train.prepare",
    "mlxops.jobs.train.session",
    "mlxops.models.loading",
    "mlxops.models.tokenizer",
    "mlxops.training.loop",
    "mlxops.models.generation",
    "mlxops.ui.terminal.confirm",
    "mlxops.ui.train.live",
    "mlxops.ui.train.outcome",
    "mlxops.ui.terminal.progress",
    "mlx_lm.models.llama",
    "psutil",
    "transformers.models.llama.configuration_llama",
    "safetensors",
    "sqlite_utils",
    # what the processes of tests call
    "ready_programs",
):
    import_module(name)

# found out once a server instead of once a command
import_module("mlxops.models.folders").supported_architectures()
machine.versions()
namespace = import_module("mlxops.tasks").namespace
for name in namespace.task_names:
    namespace[name].get_arguments()
template = import_module("mlxops.models.tiny").CHAT_TEMPLATE
import_module("transformers.utils.chat_template_utils")._compile_jinja_template(template)

# a command that collects garbage looks at its own objects alone
gc.freeze()
# and not as often: it is over before the cycles it leaves take any room
gc.set_threshold(20_000, 10, 10)
