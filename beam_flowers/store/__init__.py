"""The feature store: Parquet parts, commits that name them, and the plan of a run."""
