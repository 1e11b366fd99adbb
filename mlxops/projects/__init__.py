"""Project folders, the machine they are on, and the BLAS that MLX runs on there."""
