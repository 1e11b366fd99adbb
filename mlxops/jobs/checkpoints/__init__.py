"""Jobs on checkpoints: listing, explaining, verifying, offering, pruning."""
