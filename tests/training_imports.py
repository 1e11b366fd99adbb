"""Imported by the server that commands are forked from: all that a command loads, and nothing computed with it."""

import mlxops.__main__
import mlxops.jobs.train
import mlxops.ui.live
import mlxops.ui.outcome
import mlxops.ui.progress
from mlxops.projects import blas, machine

blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=None)

import safetensors  # noqa: E402, F401
import sqlite_utils  # noqa: E402, F401

import mlxops.models.loading
import mlxops.models.tokenizer
import mlxops.training.loop  # noqa: F401
