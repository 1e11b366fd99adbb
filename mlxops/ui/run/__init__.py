"""What the tasks on runs draw."""
