"""Jobs on training data."""
