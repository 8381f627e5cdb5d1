"""Parity: the sum modulo two of k of n bits."""
