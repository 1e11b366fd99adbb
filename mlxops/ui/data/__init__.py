"""Drawings of the tasks on training data."""
