"""Fusion: several cassettes of one task become one, their predictions weighted by a gate."""
