"""Bounds that many options share."""

HUGE = 1_000_000_000
"""More iterations, rows or checkpoints than any training has."""
