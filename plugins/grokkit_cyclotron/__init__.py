"""Cyclotron: uniform circular motion of a charge in a constant magnetic field."""
