"""Whole jobs, one module each, as the command line offers them: plan, pipeline, commit, summary."""
