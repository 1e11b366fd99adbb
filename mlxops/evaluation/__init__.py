"""How good a model is: measures over rows, and whether two models differ in them by more than chance.

It takes values and functions and loads no model: what makes text or gives log-probabilities is handed in. NumPy alone.
"""
