"""Measures models and finds labels that are probably wrong: pure functions on arrays."""
