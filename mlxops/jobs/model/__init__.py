"""Jobs on models."""
