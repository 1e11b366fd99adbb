"""What people see in the terminal: rows and events in, rich renderables out."""
