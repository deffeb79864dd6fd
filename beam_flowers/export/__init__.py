"""Writes a model and its backbone as one file or folder that works without this package."""
