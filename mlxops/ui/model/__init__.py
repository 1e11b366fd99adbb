"""Drawings of the tasks on models."""
