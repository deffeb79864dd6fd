"""Runs whole jobs, one module each: plan, pipeline, commit, summary."""
