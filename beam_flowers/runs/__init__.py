"""Whole runs, as the command line offers them: plan, pipeline, commit, summary."""
