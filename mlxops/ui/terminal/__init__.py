"""The terminal itself: console, tables, progress, keyboard, questions."""
