"""What a model can do: its answers and how good they are. Import the module you need: it loads MLX."""
