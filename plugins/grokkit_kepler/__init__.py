"""Kepler: the two-body problem, its equation, and the published stand-in for it."""
