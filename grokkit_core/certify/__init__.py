"""Certificates: how well a cassette computes its law, measured or proved, beside its baselines, and recomputed on demand."""
