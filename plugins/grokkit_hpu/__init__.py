"""The Schroedinger propagator on a torus: learned once on a coarse grid, valid on every finer one."""
