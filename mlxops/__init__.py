"""A task-runner toolkit for developing language models with MLX, around a SQLite registry of every run."""

__version__ = "0.2.0"
