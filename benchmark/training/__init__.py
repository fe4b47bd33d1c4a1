"""Models, steps, runs that train together, evaluation and checkpoints."""
