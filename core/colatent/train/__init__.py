"""Training: the loop, its stages, optimiser and moving averages."""
