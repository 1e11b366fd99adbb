"""Talking to a model and testing it. Import the module you need: most load MLX."""
