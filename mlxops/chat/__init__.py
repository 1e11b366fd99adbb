"""A conversation: its turns, the commands that a person types in it, and what happens in it. No model here."""
