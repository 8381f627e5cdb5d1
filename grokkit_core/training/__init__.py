"""Training: recipes say how an architecture is trained on a task; the trainer loops, watches and saves."""
