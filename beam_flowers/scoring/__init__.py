"""Scores: bottlenecks → ranked labels, and the tables they are written to."""
