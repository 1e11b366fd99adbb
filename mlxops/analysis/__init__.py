"""Statistics over curves: aligning, trends, significance. Pure functions of numbers."""
