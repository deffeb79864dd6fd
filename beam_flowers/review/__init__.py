"""Serves a local page on which a person corrects labels, image by image."""

CHOOSE = 25
"""Images of a store that a round asks about by default."""
