"""Drawings of the tasks that talk to a model and test it."""
