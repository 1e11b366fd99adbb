"""What the tasks on projects and on the machine show."""
