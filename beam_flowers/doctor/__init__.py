"""Finds problems of a collection of images before any backbone runs."""
