"""Charts: scales, curves on a terminal, SVG, PNG."""
