"""Training a run: preparing, deciding, claiming, fine-tuning, watching, stopping."""
