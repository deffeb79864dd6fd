"""Finds, labels and decodes images."""
