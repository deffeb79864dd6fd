"""Stores embeddings: Parquet parts, commits that name them, and the plan of a run."""
