"""What the tasks on checkpoints draw."""
