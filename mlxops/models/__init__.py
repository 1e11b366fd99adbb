"""Models on disk, on the hub and in GGUF. Import the module you need: only some of them load MLX."""
