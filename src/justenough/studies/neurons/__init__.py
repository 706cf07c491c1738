"""A billion neurons simulated: the Assembly Calculus on one machine, and what it takes."""
